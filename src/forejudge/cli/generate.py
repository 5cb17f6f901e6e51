"""`forejudge generate`: the best of N candidates for one prompt or many."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel, ConfigDict
from typer import Argument, Option

from forejudge.cli.common import print_licenses, use_compile_cache
from forejudge.cli.options import OUTPUT_PANEL, AsJson, expand_options
from forejudge.cli.progress import progress_counter, scoring_progress, spinner
from forejudge.errors import InvalidRequest
from forejudge.options import ModelOptions, SamplingParams, SearchOptions

if TYPE_CHECKING:
    from forejudge import BestOfN, Result
    from forejudge.candidates.searches import Sample


@expand_options
def generate(
    *,
    prompt: Annotated[
        str | None, Argument(metavar="PROMPT", help="Text of the image to generate.", show_default=False)
    ] = None,
    prompts: Annotated[
        Path | None,
        Option(
            metavar="FILE",
            help='Prompts instead of one PROMPT: a text file with one prompt per line, or .jsonl with a "prompt" in '
            "every line. Images are written in GenEval's layout; an interrupted run continues.",
        ),
    ] = None,
    search: SearchOptions,
    models: ModelOptions,
    images_per_prompt: Annotated[
        int, Option(help="Images of each prompt, each the best of N.", rich_help_panel=OUTPUT_PANEL)
    ] = 1,
    out: Annotated[Path, Option(metavar="DIR", help="Folder to write to.", rich_help_panel=OUTPUT_PANEL)] = Path(
        "forejudge-out"
    ),
    finish_all: Annotated[
        bool, Option("--all", help="Finish every candidate and add a contact sheet.", rich_help_panel=OUTPUT_PANEL)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Generate candidates of a prompt, score them early, finish the best and write it to a folder."""
    _refuse_contradictions(search, images_per_prompt, finish_all)
    if prompts is not None:
        _refuse_with_prompts(prompt=prompt is not None, top_k="top_k" in search.model_fields_set, all=finish_all)
        generate_many(prompts, models, search, images_per_prompt, out, as_json)
    elif prompt is not None:
        search = search.model_copy(update={"top_k": search.cap}) if finish_all else search
        generate_one(prompt, models, search, images_per_prompt, out, finish_all, as_json)
    else:
        raise InvalidRequest("no prompt: give one in quotes, or a file of them with --prompts")


def _refuse_contradictions(search: SearchOptions, images_per_prompt: int, finish_all: bool) -> None:
    if images_per_prompt < 1:
        raise InvalidRequest(f"images-per-prompt = {images_per_prompt}: it must be at least 1")
    if search.seeds and images_per_prompt > 1:
        raise InvalidRequest(
            f"seeds name the candidates of one image, but images-per-prompt = {images_per_prompt}: leave one out"
        )
    if finish_all and "top_k" in search.model_fields_set:
        raise InvalidRequest("all finishes every candidate, top-k only the best: leave one out")


def _refuse_with_prompts(**options: bool) -> None:
    for name in (name for name, is_given in options.items() if is_given):
        raise InvalidRequest(
            f"{name.replace('_', '-')} cannot go with --prompts, which writes the winner of each image"
        )


def generate_one(
    prompt: str,
    models: ModelOptions,
    search: SearchOptions,
    images_per_prompt: int,
    out: Path,
    finish_all: bool,
    as_json: bool,
) -> None:
    """Generate the images of one prompt, and write each as soon as it is finished; several get a folder each."""
    from forejudge.files import prepare_folder

    prepare_folder(out)
    best = load_models(models)
    several = images_per_prompt > 1
    results = [
        _generate_image(
            best, prompt, search.model_copy(update={"image_index": image_index}), folder, finish_all, as_json
        )
        for image_index in range(images_per_prompt)
        for folder in [out / f"image_{image_index}" if several else out]
    ]
    if as_json:
        records = [result.record.model_dump(mode="json") for result in results]
        typer.echo(json.dumps(records if several else records[0], indent=2))


def _generate_image(
    best: "BestOfN", prompt: str, search: SearchOptions, folder: Path, finish_all: bool, as_json: bool
) -> "Result":
    from forejudge.cli.result_folder import write_result
    from forejudge.cli.tables import show_result

    with scoring_progress() as on_progress:
        result = best(prompt, options=search, on_progress=on_progress)
    write_result(folder, result, finish_all)
    if not as_json:
        show_result(result, folder)
    return result


def load_models(models: ModelOptions) -> "BestOfN":
    """Load generator and verifier, and print the licenses of models that are used for the first time."""
    with spinner("loading models"):
        from forejudge import BestOfN

        if models.compiled:
            use_compile_cache()
        best = BestOfN.from_options(models)
    print_licenses([*best.generator.sources, best.verifier.source])
    return best


# FOLDED: Many prompts with one loading. Every image is on disk before the next is begun, so a run can stop at any time.


def generate_many(
    prompts: Path, models: ModelOptions, search: SearchOptions, images_per_prompt: int, out: Path, as_json: bool
) -> None:
    """Make the images that are not there yet, then say what there is."""
    from forejudge.candidates.searches import lay_out
    from forejudge.files import prepare_folder
    from forejudge.prompts.prompt_file import read_prompts

    lines = read_prompts(prompts)
    prepare_folder(out)
    samples = lay_out(out, lines, images_per_prompt)
    with spinner("reading settings"):
        settings = RunSettings.from_options(models, search, images_per_prompt)
    settings.check(out)
    remaining = [sample for sample in samples if not sample.is_complete]
    started = time.monotonic()
    if remaining:
        best = _load(models, search, remaining)
        settings.store(out)
        _generate_samples(remaining, search, best)
    records = [sample.read_record() for sample in samples]
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    typer.echo(f"{len(samples)} images of {len(lines)} prompts are in {out}.")
    typer.echo(f"{len(remaining)} were made now, in {time.monotonic() - started:.0f} s.")
    _show_passed([record["passed"] for record in records])


def _load(models: ModelOptions, search: SearchOptions, remaining: "list[Sample]") -> "BestOfN":
    """The models, once they are known to take every prompt."""
    from forejudge.prompts.prompt_file import check_lines

    best = load_models(models)
    sampling = (search.sampling or SamplingParams()).with_defaults(best.generator.defaults)
    with spinner("checking prompts"):
        check_lines((sample.line for sample in remaining), lambda prompt: best.generator.check(prompt, sampling))
    return best


def _generate_samples(remaining: "list[Sample]", search: SearchOptions, best: "BestOfN") -> None:
    with progress_counter("images", len(remaining)) as advance:
        for num_done, sample in enumerate(remaining):
            try:
                options = search.model_copy(update={"image_index": sample.image_index})
                sample.write(best(sample.line.prompt, options=options))
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"{len(remaining) - num_done} images are left, the same command makes them"
                ) from None
            advance()


def _show_passed(passed: list[bool | None]) -> None:
    if None not in passed:
        typer.echo(f"{sum(map(bool, passed))} passed; of the others the best candidate is there all the same.")


# FOLDED: What decides the pictures of a run over many prompts, kept beside them so that two runs do not mix.


_FILE = "settings.json"


class RunSettings(BaseModel):
    """The library's defaults are filled in. Device and batch size may change from one sitting to the next."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str
    verifier: str
    dtype: str
    verifier_step: int
    n: int | None
    budget_ms: float | None
    until: float | None
    max_n: int
    seed: int
    seeds: tuple[int, ...] | None
    images_per_prompt: int
    sampling: SamplingParams

    @classmethod
    def from_options(cls, models: ModelOptions, search: SearchOptions, images_per_prompt: int) -> "RunSettings":
        """Fill in the defaults of the library and of the generator."""
        from forejudge.device import dtype_name, resolve_device, resolve_dtype
        from forejudge.generators import find_spec

        spec = find_spec(models.generator)
        return cls(
            generator=_absolute(models.generator),
            verifier=_absolute(models.verifier or models.generator),
            dtype=dtype_name(resolve_dtype(models.dtype, resolve_device(models.device))),
            verifier_step=models.verifier_step,
            n=search.fixed_n,
            budget_ms=search.budget_ms,
            until=search.until,
            max_n=search.max_n,
            seed=search.seed,
            seeds=search.seeds,
            images_per_prompt=images_per_prompt,
            sampling=(search.sampling or SamplingParams()).with_defaults(spec.sampling if spec else SamplingParams()),
        )

    def check(self, folder: Path) -> None:
        """Raises InvalidRequest where a folder was made with other settings, naming both values."""
        from forejudge.config_files import read_config

        path = folder / _FILE
        if not path.exists():
            return
        for name, stored_value in read_config(path, RunSettings):
            if stored_value != getattr(self, name):
                raise InvalidRequest(
                    f"{folder} was made with {name} = {stored_value}, this run has {name} = {getattr(self, name)}: "
                    "choose another --out, or the same settings to go on with it"
                )

    def store(self, folder: Path) -> None:
        """Leave these settings in a folder. Raises OutputError."""
        from forejudge.files import write_text

        write_text(folder / _FILE, self.model_dump_json(indent=2) + "\n")


def _absolute(model: str) -> str:
    """The same folder by whatever path; names and hub ids as they are."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model
