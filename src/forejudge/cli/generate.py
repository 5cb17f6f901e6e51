"""`forejudge generate`: from options to a request, and to one prompt or many."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from pydantic import BaseModel, ConfigDict

from forejudge import BestOfN, SamplingParams
from forejudge.candidates.searches import Sample, lay_out
from forejudge.cli import options
from forejudge.cli.common import print_licenses, use_compile_cache
from forejudge.cli.progress import progress_counter, scoring_progress, spinner
from forejudge.cli.result_folder import write_result
from forejudge.cli.tables import show_result, show_warnings
from forejudge.config_files import read_config
from forejudge.device import dtype_name, resolve_device, resolve_dtype
from forejudge.errors import InvalidRequest
from forejudge.files import prepare_folder, write_text
from forejudge.generators import find_spec
from forejudge.policies import SearchLimits
from forejudge.prompts.prompt_file import check_lines, read_prompts

if TYPE_CHECKING:
    from forejudge import Result
    from forejudge.search import OnProgress


# FOLDED: What the user asked for. An option that was not given is None, and the library's default holds.


def drop_none(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class ModelOptions:
    """Which models, and where they run: arguments of `BestOfN.from_pretrained`."""

    generator: str | None
    verifier: str | None
    device: str | None
    dtype: str | None
    batch_size: int | None
    verifier_step: int | None
    offload: str | None
    compiled: bool

    def load(self) -> "BestOfN":
        """Load both."""
        from forejudge import BestOfN

        if self.compiled:
            use_compile_cache()
        return BestOfN.from_pretrained(**drop_none(vars(self)))


@dataclass(frozen=True)
class SamplingOptions:
    """How a candidate is drawn: fields of `SamplingParams`."""

    steps: int | None
    guidance_scale: float | None
    height: int | None
    width: int | None
    lora_scale: float | None

    def build(self, defaults: "SamplingParams | None" = None) -> "SamplingParams":
        """What was given, the rest as in `defaults`. Raises InvalidRequest naming an option that cannot be."""
        from pydantic import ValidationError

        from forejudge import SamplingParams

        try:
            return SamplingParams(**((defaults or SamplingParams()).model_dump() | drop_none(vars(self))))
        except ValidationError as error:
            first_error = error.errors()[0]
            raise InvalidRequest(f"{first_error['loc'][0]} = {first_error['input']}: {first_error['msg']}") from None


@dataclass(frozen=True)
class SearchArguments:
    """How many candidates, and which: arguments of a call of `BestOfN`."""

    n: int | None
    budget_ms: float | None
    until: float | None
    max_n: int | None
    seed: int | None
    seeds: tuple[int, ...] | None
    top_k: int | None

    def limits(self) -> SearchLimits:
        """When the search ends. Raises InvalidRequest."""
        n = len(self.seeds) if self.seeds else self.n
        return SearchLimits(n, self.budget_ms, self.until, **drop_none({"max_n": self.max_n}))


@dataclass(frozen=True)
class GenerateOptions:
    """All of it, but for prompts and output."""

    models: ModelOptions
    sampling: SamplingOptions
    search: SearchArguments
    images_per_prompt: int
    finish_all: bool  # finish every candidate

    def check(self) -> None:
        """Refuse, before anything is loaded, what no search can do. Raises InvalidRequest."""
        self.search.limits()
        if self.images_per_prompt < 1:
            raise InvalidRequest(f"images-per-prompt = {self.images_per_prompt} draws nothing: it must be at least 1")
        if self.search.seeds and self.images_per_prompt > 1:
            raise InvalidRequest("seeds stand for one image, images-per-prompt for several: leave one out")
        if self.search.seeds and self.search.seed is not None:
            raise InvalidRequest("the candidates' seeds are given, so seed would change nothing: leave one out")
        if self.finish_all and self.search.top_k is not None:
            raise InvalidRequest("all finishes every candidate and top-k only the best: leave one out")

    def load(self) -> "BestOfN":
        """The models, once all else is known to be right."""
        self.sampling.build()
        return self.models.load()

    def run(self, best: "BestOfN", prompt: str, image_index: int, on_progress: "OnProgress | None" = None) -> "Result":
        """One best of N; what it had to do without is told once."""
        search = replace(self.search, top_k=self.search.limits().cap) if self.finish_all else self.search
        num_warnings = len(best.warnings)
        result = best(
            prompt,
            **drop_none(vars(search)),
            image_index=image_index,
            sampling=self.sampling.build(best.generator.defaults),
            on_progress=on_progress,
        )
        show_warnings(best.warnings[num_warnings:])
        return result


def parse_seeds(text: str | None) -> tuple[int, ...] | None:
    """Seeds with commas between. Raises InvalidRequest; which numbers can be seeds is the library's affair."""
    if text is None:
        return None
    try:
        return tuple(int(seed) for seed in text.split(","))
    except ValueError:
        raise InvalidRequest(f"seeds = {text!r}: expected numbers with commas between, such as 3,14,15") from None


# FOLDED: Many prompts with one loading. Every image is on disk before the next is begun, so a run can stop at any time.


def generate_many(prompts: Path, generate_options: GenerateOptions, out: Path, as_json: bool) -> None:
    """Make the images that are not there yet, then say what there is."""
    lines = read_prompts(prompts)
    prepare_folder(out)
    samples = lay_out(out, lines, generate_options.images_per_prompt)
    settings = _settings(generate_options, out)
    remaining = [sample for sample in samples if not sample.is_complete]
    started = time.monotonic()
    if remaining:
        best = _load(generate_options, remaining)
        settings.store(out)
        _generate_samples(remaining, generate_options, best)
    records = [sample.read_record() for sample in samples]
    if as_json:
        typer.echo(json.dumps(records, indent=2))
        return
    typer.echo(f"{len(samples)} images of {len(lines)} prompts are in {out}.")
    typer.echo(f"{len(remaining)} were made now, in {time.monotonic() - started:.0f} s.")
    _show_passed([record["passed"] for record in records])


def _settings(generate_options: GenerateOptions, out: Path) -> "RunSettings":
    with spinner("reading settings"):
        # takes seconds

        settings = RunSettings.from_options(generate_options)
    settings.check(out)
    return settings


def _load(generate_options: GenerateOptions, remaining: list[Sample]) -> "BestOfN":
    """The models, once they are known to take every prompt."""
    with spinner("loading models"):
        best = generate_options.load()
    print_licenses([*best.generator.sources, best.verifier.source])
    show_warnings(best.warnings)
    sampling = generate_options.sampling.build(best.generator.defaults)
    with spinner("checking prompts"):
        check_lines((sample.line for sample in remaining), lambda prompt: best.generator.check(prompt, sampling))
    return best


def _generate_samples(remaining: list[Sample], generate_options: GenerateOptions, best: "BestOfN") -> None:
    with progress_counter("images", len(remaining)) as advance:
        for num_done, sample in enumerate(remaining):
            try:
                sample.write(generate_options.run(best, sample.line.prompt, sample.image_index))
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"{len(remaining) - num_done} images are left, the same command makes them"
                ) from None
            advance()


def _show_passed(passed: list[bool | None]) -> None:
    if None not in passed:
        typer.echo(f"{sum(map(bool, passed))} passed; of the others the best candidate is there all the same.")


# FOLDED: One prompt: load, search, write a folder, show a table.


def generate_one(prompt: str, generate_options: GenerateOptions, out: Path, as_json: bool) -> None:
    """Make the images of a prompt; each is written as soon as it is there. Several get a folder each."""
    prepare_folder(out)
    with spinner("loading models"):
        best = generate_options.load()
    print_licenses([*best.generator.sources, best.verifier.source])
    show_warnings(best.warnings)
    several = generate_options.images_per_prompt > 1
    results = [
        _generate(
            best, prompt, generate_options, image_index, out / f"image_{image_index}" if several else out, as_json
        )
        for image_index in range(generate_options.images_per_prompt)
    ]
    if as_json:
        records = [result.record.model_dump(mode="json") for result in results]
        typer.echo(json.dumps(records if several else records[0], indent=2))


def _generate(
    best: "BestOfN", prompt: str, generate_options: GenerateOptions, image_index: int, folder: Path, as_json: bool
) -> "Result":
    with scoring_progress() as on_progress:
        result = generate_options.run(best, prompt, image_index, on_progress)
    write_result(folder, result, generate_options.finish_all)
    if not as_json:
        show_result(result, folder)
    return result


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
    def from_options(cls, generate_options: GenerateOptions) -> "RunSettings":
        """Raises InvalidRequest for limits and sampling that cannot be."""
        models = _with_defaults(BestOfN.from_pretrained, vars(generate_options.models))
        search = _with_defaults(BestOfN.__call__, vars(generate_options.search))
        limits, spec = generate_options.search.limits(), find_spec(models["generator"])
        return cls(
            generator=_absolute(models["generator"]),
            verifier=_absolute(models["verifier"] or models["generator"]),
            dtype=dtype_name(resolve_dtype(models["dtype"], resolve_device(models["device"]))),
            verifier_step=models["verifier_step"],
            n=limits.cap if limits.reason_at_cap == "n" else None,
            budget_ms=limits.budget_ms,
            until=limits.until,
            max_n=limits.max_n,
            seed=search["seed"],
            seeds=search["seeds"],
            images_per_prompt=generate_options.images_per_prompt,
            sampling=generate_options.sampling.build(spec.sampling if spec else None),
        )

    def check(self, folder: Path) -> None:
        """Raises InvalidRequest where a folder was made with other settings, naming both values."""
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
        write_text(folder / _FILE, self.model_dump_json(indent=2) + "\n")


def _with_defaults(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    defaults = {name: parameter.default for name, parameter in signature(function).parameters.items()}
    return defaults | drop_none(arguments)


def _absolute(model: str) -> str:
    """The same folder by whatever path; names and hub ids as they are."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def generate(
    prompt: options.Prompt = None,
    prompts: options.PromptsFile = None,
    n: options.NumCandidates = None,
    budget_ms: options.BudgetMs = None,
    until: options.Until = None,
    max_n: options.MaxCandidates = None,
    seed: options.Seed = None,
    seeds: options.Seeds = None,
    top_k: options.TopK = None,
    images_per_prompt: options.ImagesPerPrompt = 1,
    steps: options.Steps = None,
    guidance_scale: options.GuidanceScale = None,
    height: options.Height = None,
    width: options.Width = None,
    lora_scale: options.LoraScale = None,
    verifier_step: options.VerifierStep = None,
    out: options.Out = Path("forejudge-out"),
    finish_all: options.FinishAll = False,
    as_json: options.AsJson = False,
    generator: options.Generator = None,
    verifier: options.Verifier = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    offload: options.Offload = None,
    compiled: options.Compile = False,
) -> None:
    """Draw candidates of a prompt, judge them early, finish the best and write it to a folder."""
    generate_options = GenerateOptions(
        ModelOptions(generator, verifier, device, dtype, batch_size, verifier_step, offload, compiled),
        SamplingOptions(steps, guidance_scale, height, width, lora_scale),
        SearchArguments(n, budget_ms, until, max_n, seed, parse_seeds(seeds), top_k),
        images_per_prompt,
        finish_all,
    )
    generate_options.check()
    if prompts is not None:
        _reject_with_prompts(prompt=prompt is not None, top_k=top_k is not None, all=finish_all)

        generate_many(prompts, generate_options, out, as_json)
    elif prompt is not None:
        generate_one(prompt, generate_options, out, as_json)
    else:
        raise InvalidRequest("no prompt: give one in quotes, or a file of them with --prompts")


def _reject_with_prompts(**options: bool) -> None:
    for name in (name for name, is_given in options.items() if is_given):
        raise InvalidRequest(
            f"{name.replace('_', '-')} cannot go with --prompts, which writes the winner of each image"
        )
