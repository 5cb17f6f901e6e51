"""`forejudge generate`: the best of N candidates for one prompt or many."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from forejudge.cli.common import echo, hold_output, print_licenses, use_compile_cache
from forejudge.cli.options import OUTPUT_PANEL, AsJson, expand_options
from forejudge.cli.progress import progress_counter, scoring_progress, spinner
from forejudge.errors import InvalidRequest
from forejudge.options import ModelOptions, SearchOptions, check_count
from forejudge.progress import Shard

if TYPE_CHECKING:
    from collections.abc import Callable

    from forejudge import BestOfN, Result
    from forejudge.candidates.searches import SearchConfig, SearchStore
    from forejudge.generators.base import Generator


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
            help='Prompts instead of one PROMPT: a text file with one per line, or JSON lines with a "prompt" each. '
            "Images are written in GenEval's layout; an interrupted run continues.",
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
    shard: Annotated[
        str,
        Option(
            metavar="I/N",
            help="Part of --prompts for this process; all parts share DIR.",
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = "1/1",
    as_json: AsJson = False,
) -> None:
    """Generate candidates of a prompt, score them early, finish the best and write it to a folder."""
    _refuse_contradictions(search, images_per_prompt, finish_all)
    if prompts is not None:
        given = search.model_fields_set
        _refuse_with_prompts(
            prompt=prompt is not None, top_k="top_k" in given, diverse="diverse" in given, all=finish_all
        )
        generate_many(prompts, models, search, images_per_prompt, out, Shard.parse(shard), as_json)
    elif prompt is not None:
        if Shard.parse(shard) != Shard():
            raise InvalidRequest(f"shard {shard} divides a file of prompts: give one with --prompts")
        if not prompt.strip():  # as the generator says it, once it is loaded
            raise InvalidRequest("the prompt is empty: describe the image")
        search = search.model_copy(update={"top_k": search.cap}) if finish_all else search
        generate_one(prompt, models, search, images_per_prompt, out, finish_all, as_json)
    else:
        raise InvalidRequest("no prompt: give one in quotes, or a file of them with --prompts")


def _refuse_contradictions(search: SearchOptions, images_per_prompt: int, finish_all: bool) -> None:
    check_count("images-per-prompt", images_per_prompt)
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
    hold_output(out)
    best = load_models(models, lambda generator: generator.check(prompt, search.sampling_for(generator.defaults)))
    from forejudge.cli.result_folder import remove_other_results

    several = images_per_prompt > 1
    folders = [out / f"image_{image_index}" if several else out for image_index in range(images_per_prompt)]
    results = [
        _generate_image(
            best, prompt, search.model_copy(update={"image_index": image_index}), folder, finish_all, as_json
        )
        for image_index, folder in enumerate(folders)
    ]
    remove_other_results(out, folders)
    if as_json:
        records = [result.record.model_dump(mode="json") for result in results]
        echo(json.dumps(records if several else records[0], indent=2))


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


def load_models(models: ModelOptions, check: "Callable[[Generator], object]") -> "BestOfN":
    """Load generator and verifier as `BestOfN.from_options`, and print licenses that were not shown before."""
    with spinner("loading models"):
        from forejudge import BestOfN

        if models.compiled:
            use_compile_cache()
        best = BestOfN.from_options(models, check)
    print_licenses([*best.generator.sources, best.verifier.source])
    return best


def generate_many(
    prompts: Path,
    models: ModelOptions,
    search: SearchOptions,
    images_per_prompt: int,
    out: Path,
    shard: Shard,
    as_json: bool,
) -> None:
    """Generate the shard's images of a prompt file that are not in `out` yet, then print what is there."""
    from forejudge.prompts.prompt_file import read_prompts

    lines = read_prompts(prompts)
    hold_output(out, shard)
    with spinner("reading settings"):
        from forejudge.candidates.searches import SearchConfig, SearchStore, check_search

        settings = SearchConfig.from_options(models, search, images_per_prompt)
    store = SearchStore(out, lines, images_per_prompt)
    store.check_prompts(lines)
    store.refuse_other(settings)
    if added := store.num_added(lines):
        echo(f"{added} of {len(lines)} prompts are new at the end of {prompts}", err=True)
    left, started = [block for block in shard.indices(store.blocks) if not store.has(block)], time.monotonic()
    if left or not settings.names_models_of(store.settings):
        best = load_models(models, lambda generator: check_search(generator, map(store.line, left), search))
        _collect(store, settings.identified(best), best, search, shard, len(left))
    records = [store.record(block) for block in range(store.blocks) if store.has(block)]
    if as_json:
        echo(json.dumps([record.model_dump(mode="json") for record in records], indent=2))
        return
    echo(f"{len(records)} images of {len(lines)} prompts are in {out}.")
    echo(f"{len(left)} were generated now, in {time.monotonic() - started:.0f} s.")
    if missing := len(store.missing):
        echo(f"shard {shard} is done; of all {store.blocks} images {missing} are left to the other shards")
    elif None not in (passed := [record.passed for record in records]):
        echo(f"{passed.count(True)} passed; for the others the best candidate is there all the same.")


def _collect(
    store: "SearchStore", settings: "SearchConfig", best: "BestOfN", search: SearchOptions, shard: Shard, total: int
) -> None:
    """Generate the shard's `total` images with a progress bar."""
    from forejudge.candidates.searches import SearchCollector

    collector = SearchCollector(best, search, settings, store.lines)
    try:
        with progress_counter("images", total) as advance:
            collector.run(store, shard, lambda progress: advance())
    except KeyboardInterrupt:
        left = len(collector.blocks_left(store, shard))
        raise KeyboardInterrupt(f"{left} images are left, the same command generates them") from None
