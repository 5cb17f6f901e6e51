"""A step up the gradient raises the score and keeps the noise's length."""

from pathlib import Path

import pytest
import torch

from forejudge.errors import InvalidRequest
from forejudge.generators import load_generator
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.progress import ignore_progress
from forejudge.verifiers import load_verifier
from forejudge.verifiers.image_scores import ImageScoreVerifier
from research.figures.noise_gradient import NoiseGradient, NoiseGradientReport, measure_noise_gradient, write_plot

CPU, PROMPT, SEEDS = torch.device("cpu"), "a photo of two squares", (1, 2, 3)


@pytest.fixture(scope="module")
def gradient() -> NoiseGradient:
    return NoiseGradient.of(
        load_generator("miniature", CPU, torch.float32), load_verifier("miniature", CPU, torch.float32)
    )


def test_a_small_step_raises_the_score_and_keeps_the_length(gradient: NoiseGradient) -> None:
    generator = gradient.generator
    conditioning = generator.encode_without_padding(PROMPT, generator.defaults)
    unmoved, moved = gradient.ascend(PROMPT, conditioning, SEEDS, (0.0, 0.02))
    torch.testing.assert_close(unmoved, gradient.noise(conditioning, SEEDS))
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), unmoved.flatten(1).norm(dim=1))
    before, after = (
        gradient.verifier.score(PROMPT, gradient.start(conditioning, noise_NCHW, SEEDS))
        for noise_NCHW in (unmoved, moved)
    )
    assert all(high.score > low.score for low, high in zip(before, after, strict=True))


@pytest.mark.slow  # times searches in many rounds
def test_the_report_holds_every_radius_and_n(gradient: NoiseGradient, tmp_path: Path) -> None:
    evaluator = MiniatureEvaluator()
    report = measure_noise_gradient(gradient, (evaluator, evaluator), 1, ignore_progress)
    assert (report.cases, [each.radius for each in report.radii]) == (6, [0.0, 0.05, 0.1, 0.2, 0.4, 0.8])
    assert report.radii[0].lead.estimate == 0
    assert report.radii[0].correct == report.radii[0].second == report.best_of_n[1]
    assert set(report.milliseconds) == {"best of 1", "best of 2", "best of 3", "best of 4", "one gradient step"}
    report.write(tmp_path / "report.json")
    assert NoiseGradientReport.read(tmp_path / "report.json") == report
    write_plot(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 10_000


def test_a_verifier_without_a_gradient_is_refused(gradient: NoiseGradient) -> None:
    scorer = ImageScoreVerifier(lambda prompt, images: [0.0] * len(images), "flat")
    with pytest.raises(InvalidRequest, match="verifier flat: expected a calibrated one that reads a hidden state"):
        NoiseGradient.of(gradient.generator, scorer)
