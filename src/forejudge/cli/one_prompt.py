"""One prompt: load, search, write a folder, show a table."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from forejudge.cli.licences import tell_licences
from forejudge.cli.progress import judging, waiting
from forejudge.cli.request import Request
from forejudge.cli.result_folder import write_result
from forejudge.cli.tables import show_result, show_warnings
from forejudge.files import prepare_folder

if TYPE_CHECKING:
    from forejudge import BestOfN, Result


def generate_one(prompt: str, request: Request, out: Path, as_json: bool) -> None:
    """Make the images of a prompt; each is written as soon as it is there. Several get a folder each."""
    prepare_folder(out)
    with waiting("loading models"):
        best = request.load()
    tell_licences([*best.generator.sources, best.verifier.source])
    show_warnings(best.warnings)
    several = request.images_per_prompt > 1
    results = [
        _generate(best, prompt, request, image_index, out / f"image_{image_index}" if several else out, as_json)
        for image_index in range(request.images_per_prompt)
    ]
    if as_json:
        records = [result.record.model_dump(mode="json") for result in results]
        typer.echo(json.dumps(records if several else records[0], indent=2))


def _generate(
    best: "BestOfN", prompt: str, request: Request, image_index: int, folder: Path, as_json: bool
) -> "Result":
    with judging() as on_progress:
        result = request.run(best, prompt, image_index, on_progress)
    write_result(folder, result, request.everything)
    if not as_json:
        show_result(result, folder)
    return result
