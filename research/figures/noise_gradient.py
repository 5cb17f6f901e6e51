"""One step up the verifier's gradient in a candidate's noise: what it does to the score, and to the image.

The gradient of the log-odds runs back through the generator's first blocks. A step of radius r moves the noise by r
times its own length and brings it back to that length. A larger radius raises the score further, and at some point the
image no longer follows (over-optimization).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from forejudge.config_files import read_config
from forejudge.errors import InvalidRequest
from forejudge.evaluation.bootstrap import Difference, Share, bootstrap_mean, paired_difference
from forejudge.evaluators.base import Evaluator
from forejudge.files import write_bytes, write_text
from forejudge.generators.base import Generator
from forejudge.generators.sana_sprint import SanaConditioning, SanaSprint
from forejudge.miniature.prompts import TestCase, cases
from forejudge.noise import noise_batch
from forejudge.profiling.measure import measure_time_interleaved
from forejudge.progress import ProgressCallback, Stopwatch
from forejudge.result import provenance
from forejudge.training.dataset import PromptEncoder
from forejudge.training.model import log_odds
from forejudge.training.stage_models import trained_stage
from forejudge.types import IMAGE, Candidates
from forejudge.verifiers.base import PretrainedVerifier, Verifier

RADII = (0.05, 0.1, 0.2, 0.4, 0.8)
NS = (1, 2, 3, 4)
_ROUNDS, _WARM_UP = 21, 3


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RadiusFigures(_Figures):
    """Candidates after a step of one radius: mean probability, and shares of right images with 95 % intervals.

    `lead` is over the candidates before the step. `second` is the share of a second evaluator's verdicts.
    """

    radius: NonNegativeFloat
    probability: Share
    correct: Share
    second: Share
    lead: Difference


class NoiseGradientReport(_Figures):
    """Figures by radius, Best-of-N beside them, and milliseconds of a search of one candidate in each way."""

    provenance: dict[str, str]
    verifier: str
    cases: PositiveInt
    radii: list[RadiusFigures]
    best_of_n: dict[int, Share]
    milliseconds: dict[str, float]

    @classmethod
    def read(cls, path: Path) -> "NoiseGradientReport":
        """Read a report. Raises CheckpointError naming the file and the field."""
        return read_config(path, cls)

    def write(self, path: Path) -> None:
        """Write the report as JSON. Raises OutputError."""
        write_text(path, self.model_dump_json(indent=1) + "\n")


def write_plot(report: NoiseGradientReport, path: Path) -> None:
    """Write score and quality against the radius as PNG. Raises OutputError where it can't be written."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    radii = [each.radius for each in report.radii]
    for label, shares in {
        "verifier's probability": [each.probability for each in report.radii],
        "right": [each.correct for each in report.radii],
        "right to another evaluator": [each.second for each in report.radii],
    }.items():
        low, high = ([100 * getattr(share, end) for share in shares] for end in ("low", "high"))
        axes.plot(radii, [100 * share.estimate for share in shares], "o-", label=label)
        axes.fill_between(radii, low, high, alpha=0.1)
    axes.set_xlabel("radius of the step, as a share of the noise's length")
    axes.set_ylabel("mean over candidates, %")
    axes.grid(alpha=0.3)
    axes.legend()
    image = BytesIO()
    figure.savefig(image, dpi=120)
    write_bytes(path, image.getvalue())


@dataclass(frozen=True)
class NoiseGradient:
    """A generator with a verifier whose gradient moves the noise of candidates."""

    generator: SanaSprint
    verifier: PretrainedVerifier

    @classmethod
    def of(cls, generator: Generator, verifier: Verifier) -> "NoiseGradient":
        """Raise InvalidRequest for a generator that is no SANA-Sprint, or a verifier that reads no hidden state."""
        if not isinstance(generator, SanaSprint):
            raise InvalidRequest(f"{generator.name} is no SANA-Sprint, whose noise alone is moved here")
        is_trained = isinstance(verifier, PretrainedVerifier) and verifier.config.reads.startswith("hidden:")
        if not is_trained or not verifier.calibrated:
            raise InvalidRequest(f"verifier {verifier.name}: expected a calibrated one that reads a hidden state")
        assert isinstance(verifier, PretrainedVerifier)
        return cls(generator, verifier)

    @cached_property
    def _stage(self) -> tuple[nn.Module, PromptEncoder]:
        return trained_stage(self.verifier, self.generator)

    def noise(self, conditioning: SanaConditioning, seeds: tuple[int, ...]) -> Tensor:
        """Return the noise that follows from the seeds (N, C, H, W)."""
        return noise_batch(seeds, 0, conditioning.latent_shape)

    def start(self, conditioning: SanaConditioning, noise_NCHW: Tensor, seeds: tuple[int, ...]) -> Candidates:
        """Generate candidates from noise up to the verifier's stage, with gradients where they are enabled."""
        candidates = self.generator.start(conditioning, seeds, noise_NCHW)
        # The generator disables gradients in `advance`; the function inside leaves that to the caller.
        advance: Any = type(self.generator).advance.__wrapped__  # type: ignore[attr-defined]
        advanced: Candidates = advance(self.generator, candidates, self.verifier.reads)
        return advanced

    def ascend(
        self, prompt: str, conditioning: SanaConditioning, seeds: tuple[int, ...], radii: tuple[float, ...]
    ) -> list[Tensor]:
        """Return the noise after a step of each radius, all along the same gradient."""
        noise_NCHW = self.noise(conditioning, seeds).requires_grad_()
        with torch.enable_grad():
            candidates = self.start(conditioning, noise_NCHW, seeds)
            stage, encode = self._stage
            tokens_NTD = self.verifier.verifier_input.tokens(candidates)
            logprobs = stage(tokens_NTD=tokens_NTD, **encode([prompt] * len(seeds)))["logprobs"]
            (gradient_NCHW,) = torch.autograd.grad(log_odds(logprobs).sum(), noise_NCHW)
        noise_NCHW = noise_NCHW.detach()
        length_N111 = _length(noise_NCHW)
        direction_NCHW = gradient_NCHW / _length(gradient_NCHW) * length_N111
        moved = [noise_NCHW + radius * direction_NCHW for radius in radii]
        return [each / _length(each) * length_N111 for each in moved]


def _length(tensor_NCHW: Tensor) -> Tensor:
    return tensor_NCHW.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]


CaseOutcomes = dict[str, list[float]]  # "probability", "correct" and "second" of every case


def measure_noise_gradient(
    gradient: NoiseGradient, evaluators: tuple[Evaluator, Evaluator], per_task: int, report: ProgressCallback
) -> NoiseGradientReport:
    """Move one candidate of each validation case by every radius, and pick the best of a few beside them."""
    test_cases = cases("validation", per_task)
    by_radius: dict[float, CaseOutcomes] = {radius: _no_outcomes() for radius in (0.0, *RADII)}
    by_n: dict[int, list[float]] = {n: [] for n in NS}
    stopwatch = Stopwatch("noise gradient", 0, len(test_cases))
    for done, case in enumerate(test_cases, start=1):
        _measure_case(gradient, evaluators, case, by_radius, by_n)
        report(stopwatch.at(done))
    prompts = [case.description.prompt for case in test_cases]
    before = by_radius[0.0]["correct"]
    return NoiseGradientReport(
        provenance=provenance(gradient.generator.device),
        verifier=gradient.verifier.digest,
        cases=len(test_cases),
        radii=[
            RadiusFigures(
                radius=radius,
                lead=paired_difference(prompts, outcomes["correct"], before),
                **{name: bootstrap_mean(prompts, values) for name, values in outcomes.items()},
            )
            for radius, outcomes in by_radius.items()
        ],
        best_of_n={n: bootstrap_mean(prompts, outcome) for n, outcome in by_n.items()},
        milliseconds=_milliseconds(gradient, test_cases[0]),
    )


def _no_outcomes() -> CaseOutcomes:
    return {"probability": [], "correct": [], "second": []}


@torch.no_grad()
def _measure_case(
    gradient: NoiseGradient,
    evaluators: tuple[Evaluator, Evaluator],
    case: TestCase,
    by_radius: Mapping[float, CaseOutcomes],
    by_n: Mapping[int, list[float]],
) -> None:
    group, generator = case.group(0, max(NS), "validation"), gradient.generator
    prompt, seeds = group.line.prompt, group.seeds
    conditioning = generator.encode_without_padding(prompt, generator.defaults)
    plain = gradient.start(conditioning, gradient.noise(conditioning, seeds), seeds)
    scores = [verdict.score for verdict in gradient.verifier.score(prompt, plain)]
    is_right = _verdicts(generator, evaluators[0], case, plain)
    for n, outcome in by_n.items():
        outcome.append(is_right[int(np.argmax(scores[:n]))])
    noises = gradient.ascend(prompt, conditioning, seeds[:1], tuple(by_radius))
    moved = gradient.start(conditioning, torch.cat(noises), seeds[:1] * len(noises))
    verdicts = gradient.verifier.score(prompt, moved)
    right, second = (_verdicts(generator, evaluator, case, moved) for evaluator in evaluators)
    for row, outcomes in enumerate(by_radius.values()):
        outcomes["probability"].append(verdicts[row].probability or 0.0)
        outcomes["correct"].append(right[row])
        outcomes["second"].append(second[row])


def _verdicts(generator: SanaSprint, evaluator: Evaluator, case: TestCase, candidates: Candidates) -> list[float]:
    images = generator.advance(candidates, [IMAGE]).images
    return [float(each.correct) for each in evaluator([case.line] * len(images), images)]


def _milliseconds(gradient: NoiseGradient, case: TestCase) -> dict[str, float]:
    """Time searches from the encoded prompt to the image, with every candidate scored."""
    group, generator = case.group(0, max(NS), "validation"), gradient.generator
    prompt, seeds = group.line.prompt, group.seeds
    conditioning = generator.encode_without_padding(prompt, generator.defaults)

    @torch.no_grad()
    def best_of(n: int) -> None:
        candidates = gradient.start(conditioning, gradient.noise(conditioning, seeds[:n]), seeds[:n])
        gradient.verifier.score(prompt, candidates)
        generator.advance(candidates[[0]], [IMAGE])

    @torch.no_grad()
    def step() -> None:
        (noise_NCHW,) = gradient.ascend(prompt, conditioning, seeds[:1], (0.1,))
        generator.advance(gradient.start(conditioning, noise_NCHW, seeds[:1]), [IMAGE])

    workloads = {f"best of {n}": partial(best_of, n) for n in NS} | {"one gradient step": step}
    timings = measure_time_interleaved(workloads, generator.device, _ROUNDS, _WARM_UP)
    return {name: round(timing.median, 2) for name, timing in timings.items()}
