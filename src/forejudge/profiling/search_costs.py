"""What a search costs with each verifier: milliseconds, FLOPs and memory, encoded prompt to decoded winner."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from pydantic import BaseModel, ConfigDict

from forejudge.best_of_n import BestOfN
from forejudge.draw import Drawing
from forejudge.generators.base import Generator
from forejudge.profiling.flops import count_flops
from forejudge.profiling.memory import peak_memory
from forejudge.profiling.stage_timing import timed
from forejudge.progress import Report, Stopwatch
from forejudge.types import IMAGE, latent_stage
from forejudge.verifiers.base import Verifier

_JUDGED_AT_ONCE = 8  # the N at which memory is measured, beside 1


class SearchCosts(BaseModel):
    """Of one verifier. `milliseconds` by N is the median over rounds; memory is the peak while candidates are judged.

    FLOPs are split into those of a search and those of each candidate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    milliseconds: dict[int, float]
    fixed_flops: int
    candidate_flops: int
    judging_bytes: dict[int, int]


def search_costs(
    generator: Generator, verifier: Verifier, prompt: str, ns: Sequence[int], rounds: int, report: Report
) -> SearchCosts:
    """Measure one verifier, models warm. FLOPs and memory are counted in runs of their own."""
    best = BestOfN(generator, verifier, prompts_kept=0)  # the same prompt, encoded every time
    stopwatch = Stopwatch(f"timing {verifier.name}", 0, len(ns))
    milliseconds = {}
    for done, n in enumerate(ns, start=1):
        milliseconds[n] = median_milliseconds(partial(best, prompt, n), rounds, generator.device)
        report(stopwatch.at(done))
    drawing = Drawing(generator, verifier, prompt, generator.defaults)
    judged_at_once = {n: partial(drawing.judge, tuple(range(n))) for n in (1, _JUDGED_AT_ONCE)}
    one, two = (count_flops(partial(best, prompt, n)) for n in (1, 2))
    return SearchCosts(
        milliseconds=milliseconds,
        fixed_flops=2 * one - two,
        candidate_flops=two - one,
        judging_bytes={n: peak_memory(judge, generator.device) for n, judge in judged_at_once.items()},
    )


def stage_flops(generator: Generator, verifiers: Mapping[str, Verifier], prompt: str) -> dict[str, int]:
    """Of each stage for one candidate: encode, the generator's way to where the first verifier reads and on, decode.

    What verifiers add goes by their names.
    """
    sampling, latent = generator.defaults, latent_stage()
    conditioning = generator.encode_without_padding(prompt, sampling)
    first = max(next(iter(verifiers.values())).reads)
    noise = generator.start(conditioning, (0,))
    stages = {"encode": count_flops(partial(generator.encode_without_padding, prompt, sampling))}
    done = noise
    for name, stage in (("to the verdict", min(first, latent)), ("to the latent", latent), ("decode", IMAGE)):
        stages[name] = count_flops(partial(generator.advance, done, [stage]))
        done = generator.advance(done, [stage])
    for name, verifier in verifiers.items():
        read = generator.advance(noise, verifier.reads)
        stages[name] = count_flops(partial(verifier.judge, prompt, read))
    return stages


def drawing_milliseconds(generator: Generator, prompt: str, steps: int, rounds: int) -> float:
    """One picture with so many steps and no verifier."""

    def draw() -> None:
        conditioning = generator.encode_without_padding(prompt, generator.defaults.model_copy(update={"steps": steps}))
        generator.advance(generator.start(conditioning, (0,)), [IMAGE])

    return median_milliseconds(draw, rounds, generator.device)


def median_milliseconds(work: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Of `rounds` runs, after one that warms up."""
    return timed(work, device, rounds, warm_up=1).median
