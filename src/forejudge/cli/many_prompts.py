"""Many prompts with one loading. Every image is on disk before the next is begun, so a run can stop at any time."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from forejudge.cli.geneval_folder import Sample, lay_out
from forejudge.cli.licences import tell_licences
from forejudge.cli.progress import counting, waiting
from forejudge.cli.request import Request
from forejudge.cli.tables import show_warnings
from forejudge.evaluation.prompts_file import check_lines, read_prompts
from forejudge.files import prepare_folder

if TYPE_CHECKING:
    from forejudge import BestOfN
    from forejudge.cli.run_settings import RunSettings


def generate_many(prompts: Path, request: Request, out: Path, as_json: bool) -> None:
    """Make the images that are not there yet, then say what there is."""
    lines = read_prompts(prompts)
    prepare_folder(out)
    samples = lay_out(out, lines, request.images_per_prompt)
    settings = _settings(request, out)
    left = [sample for sample in samples if not sample.is_complete]
    started = time.monotonic()
    if left:
        best = _load(request, left)
        settings.store(out)
        _make(left, request, best)
    records = [sample.read_record() for sample in samples]
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    typer.echo(f"{len(samples)} images of {len(lines)} prompts are in {out}.")
    typer.echo(f"{len(left)} were made now, in {time.monotonic() - started:.0f} s.")
    _show_passed([record["passed"] for record in records])


def _settings(request: Request, out: Path) -> "RunSettings":
    with waiting("reading settings"):
        from forejudge.cli.run_settings import RunSettings  # takes seconds

        settings = RunSettings.of(request)
    settings.check(out)
    return settings


def _load(request: Request, left: list[Sample]) -> "BestOfN":
    """The models, once they are known to take every prompt."""
    with waiting("loading models"):
        best = request.load()
    tell_licences([*best.generator.sources, best.verifier.source])
    show_warnings(best.warnings)
    sampling = request.sampling.build(best.generator.defaults)
    with waiting("checking prompts"):
        check_lines((sample.line for sample in left), lambda prompt: best.generator.check(prompt, sampling))
    return best


def _make(left: list[Sample], request: Request, best: "BestOfN") -> None:
    with counting("images", len(left)) as advance:
        for done, sample in enumerate(left):
            try:
                sample.write(request.run(best, sample.line.prompt, sample.image_index))
            except KeyboardInterrupt:
                raise KeyboardInterrupt(f"{len(left) - done} images are left, the same command makes them") from None
            advance()


def _show_passed(passed: list[bool | None]) -> None:
    if None not in passed:
        typer.echo(f"{sum(map(bool, passed))} passed; of the others the best candidate is there all the same.")
