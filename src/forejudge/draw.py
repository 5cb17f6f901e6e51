"""Drawing and judging one chunk of candidates, timed by stage, smaller where memory is short."""

from typing import Any

import torch

from forejudge.clock import StageClock
from forejudge.generators.base import Generator
from forejudge.types import IMAGE, Candidates, Verdict, latent_stage
from forejudge.verifiers.base import Verifier


def draw_and_judge(
    generator: Generator,
    verifier: Verifier,
    prompt: str,
    conditioning: Any,
    seeds: tuple[int, ...],
    clock: StageClock,
) -> tuple[Candidates, list[Verdict]]:
    """Candidates at the furthest stage that the verifier reads, without their views, and their verdicts."""
    with clock.stage("prefix"):
        candidates = generator.start(conditioning, seeds)
        candidates = generator.advance(candidates, verifier.reads)
    with clock.stage("verify"):
        verdicts = verifier.judge(prompt, candidates)
    return candidates.without_views(), verdicts


def finish(generator: Generator, candidates: Candidates, clock: StageClock, steps: int) -> Any:
    """The picture of a single candidate, from where it stands."""
    with clock.stage("suffix"):
        last = latent_stage(steps - 1)
        if candidates.stage < last:
            candidates = generator.advance(candidates, [last])
    with clock.stage("decode"):
        return generator.advance(candidates, [IMAGE]).views[IMAGE][0]


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory ran out, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
