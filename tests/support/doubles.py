"""Doubles of the engine's tests: scripted models, a fake clock, and a call of the reference pipeline."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import SanaSprintPipeline
from PIL import Image

from forejudge.expected_improvement import Prior
from forejudge.generators import load_generator
from forejudge.generators.base import Architecture, Generator, SamplingParams
from forejudge.noise import candidate_seed
from forejudge.types import IMAGE, NOISE, Candidates, Stage, Verdict, latent_stage, prefix_stage
from forejudge.verifiers.base import Verifier

PROMPT = "a photo of a red circle left of a blue square"
CPU = torch.device("cpu")
GeneratorT = TypeVar("GeneratorT", bound=Generator)
ARCHITECTURE = Architecture(
    transformer="Scripted", width=1, num_blocks=4, latent_channels=1, latent_size=1, text_width=1
)


class FakeClock:
    """Stand-in for `perf_counter` in forejudge.session: time passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def probabilities(*script: float) -> dict[int, float]:
    """Return a script for `ScriptedVerifier`: the probabilities of candidates 0, 1, ... of PROMPT under seed 0."""
    return {candidate_seed(0, PROMPT, 0, index): probability for index, probability in enumerate(script)}


class ScriptedGenerator(Generator):
    """Generator that computes nothing, and records how many candidates it advanced to which stage.

    The images of the seeds in `broken` are not finite.
    """

    def __init__(self, before_advance: Callable[[int], None] = lambda count: None, broken: Iterable[int] = ()) -> None:
        self.name, self.architecture, self.fingerprint = "scripted", ARCHITECTURE, "0"
        self.device, self.dtype = CPU, torch.float32
        self.encoded, self.broken = 0, frozenset(broken)
        self.advanced: list[tuple[Stage, int]] = []
        self.before_advance = before_advance

    def check(self, prompt: str, sampling: SamplingParams) -> None:
        pass

    def encode(self, prompt: str, sampling: SamplingParams) -> str:
        self.encoded += 1
        return prompt

    def start(self, conditioning: Any, seeds: tuple[int, ...]) -> Candidates:
        return Candidates(seeds, NOISE, {}, torch.tensor(seeds))

    def advance(self, candidates: Candidates, stages: Iterable[Stage]) -> Candidates:
        self.before_advance(len(candidates))
        views = dict(candidates.views)
        for stage in set(stages) - set(views):
            self.advanced.append((stage, len(candidates)))
            images = tuple(
                None if seed in self.broken else Image.new("I", (1, 1), seed % 2**31) for seed in candidates.seeds
            )
            views[stage] = images if stage == IMAGE else candidates.state
        return Candidates(candidates.seeds, max(stages), views, candidates.state)

    def with_steps(self, candidates: Candidates, steps: int) -> Candidates:
        return replace(candidates, stage=min(candidates.stage, latent_stage()), views={})


class ScriptedVerifier(Verifier):
    """Verifier that gives each seed the probability of its script, also as its score; 0 to all others."""

    prior = Prior(mean=0.0, weight=1.0, min_deviation=1.0)

    def __init__(self, script: dict[int, float], *reads: Stage) -> None:
        self.name, self.digest, self.calibrated, self.script = "scripted", "0", True, script
        self.reads = frozenset(reads or {prefix_stage(2)})

    def check(self, generator: Generator) -> list[str]:
        return []

    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        assert self.reads <= candidates.views.keys()
        scripted = [self.script.get(seed, 0.0) for seed in candidates.seeds]
        return [Verdict(score=probability, probability=probability) for probability in scripted]


def load_as(kind: type[GeneratorT], folder: Path) -> GeneratorT:
    """Load a generator from a folder; it must be of class `kind`."""
    scripted = load_generator(str(folder), CPU, torch.float32)
    assert isinstance(scripted, kind)
    return scripted


def load_pipeline(folder: Path, dtype: torch.dtype = torch.float32) -> SanaSprintPipeline:
    """Load a pipeline with diffusers alone."""
    pipeline = SanaSprintPipeline.from_pretrained(folder, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call_reference_pipeline(pipeline: SanaSprintPipeline, seeds: Sequence[int], steps: int = 1, **changes: Any) -> Any:
    """Return the images of the pipeline's own call for some seeds, in one batch."""
    arguments = {
        "num_inference_steps": steps,
        "intermediate_timesteps": None,
        "height": 64,
        "width": 64,
        "use_resolution_binning": False,
        "complex_human_instruction": None,
        "num_images_per_prompt": len(seeds),
        "generator": [torch.Generator().manual_seed(seed) for seed in seeds],
    }
    return pipeline(PROMPT, **arguments | changes).images
