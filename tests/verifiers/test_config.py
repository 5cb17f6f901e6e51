"""Calibration, from log-odds to probabilities, and the ranges of sizes."""

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from forejudge.errors import MismatchError
from forejudge.generators.base import Architecture
from forejudge.hub import Source
from forejudge.verifiers.config import Calibration, VerifierConfig, fit_calibration
from forejudge.verifiers.inputs import build_verifier_input
from forejudge.verifiers.language_model import LanguageModelVerifierConfig
from tests.support.doubles import ARCHITECTURE, ScriptedGenerator


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 0.0), (2.5, -0.8), (0.2, 1.5)])
def test_a_known_temperature_and_bias_are_found_again(temperature: float, bias: float) -> None:
    draw = torch.Generator().manual_seed(0)
    log_odds = torch.randn(40_000, generator=draw, dtype=torch.float64) * 2 * temperature
    chance = torch.sigmoid(log_odds / temperature + bias)
    correct = torch.rand(len(chance), generator=draw, dtype=torch.float64) < chance
    found = fit_calibration(log_odds.tolist(), correct.tolist())
    assert found.temperature == pytest.approx(temperature, rel=0.05)
    assert found.bias == pytest.approx(bias, abs=0.05)


@pytest.mark.parametrize("scale", [1e-5, 0.01, 1.0, 300.0])
def test_the_fit_is_where_the_likelihood_is_flat(scale: float) -> None:
    """On labels that no sigmoid explains, and log-odds of any size: both derivatives of the loss are zero."""
    x = scale * torch.linspace(-3, 5, 400, dtype=torch.float64)
    y = (torch.arange(400) % 7 < 3) ^ (x > 2 * scale)
    found = fit_calibration(x.tolist(), y.tolist())
    error = torch.sigmoid(x / found.temperature + found.bias) - y.double()
    assert error.mean().item() == pytest.approx(0, abs=1e-4)
    assert (error * x / scale).mean().item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("middle", [0.0, 50.0])
def test_the_fit_converges_where_log_odds_tell_nearly_all(middle: float) -> None:
    """A steep slope, and a bias as far from zero as the log-odds are."""
    x = middle + torch.linspace(-4, 4, 800, dtype=torch.float64)
    y = x > middle
    y[:3], y[-2:] = True, False
    found = fit_calibration(x.tolist(), y.tolist())
    error = torch.sigmoid(x / found.temperature + found.bias) - y.double()
    assert error.mean().item() == pytest.approx(0, abs=1e-5)
    assert (error * x).mean().item() == pytest.approx(0, abs=1e-3)


def test_a_verifier_describes_the_generator_it_was_made_for() -> None:
    generator = ScriptedGenerator()
    generator.sources = ()
    config = VerifierConfig.from_generator(generator, "hidden:2", kind="language_model")
    assert (config.generator, config.generator_fingerprint) == (generator.architecture, generator.fingerprint)
    assert config.generator_source is None
    assert config.input_width(build_verifier_input("hidden:2")) == generator.architecture.width


@pytest.mark.parametrize("field", Architecture.model_fields)
def test_a_generator_of_another_architecture_is_refused_with_both_values(field: str) -> None:
    config = VerifierConfig.from_generator(ScriptedGenerator(), "hidden:2", kind="language_model")
    config.check(ARCHITECTURE, "given", "v")
    other = ARCHITECTURE.model_copy(update={field: "Other" if field == "transformer" else 7})
    own, given = getattr(ARCHITECTURE, field), getattr(other, field)
    with pytest.raises(MismatchError, match=f"v reads .* with {field} = {own}, but given has {field} = {given}: use"):
        config.check(other, "given", "v")


def test_a_verifier_of_an_unknown_generator_says_its_width_and_refuses_none() -> None:
    config = VerifierConfig(
        kind="language_model", generator=None, generator_fingerprint=None, reads="hidden:2", width=5
    )
    assert config.input_width(build_verifier_input("hidden:2")) == 5
    config.check(ARCHITECTURE, "given", "v")


@pytest.mark.parametrize(
    ("trained_on", "loaded", "warned"),
    [("new", "new", False), ("old", "new", True), (None, "new", False), ("old", None, False)],
)
def test_a_generator_of_another_commit_is_told(trained_on: str | None, loaded: str | None, warned: bool) -> None:
    generators = []
    for commit in (trained_on, loaded):
        generator = ScriptedGenerator()
        generator.sources = (
            Source("owner/text-encoder", Path("other"), commit="1"),
            Source("owner/decoder", Path("other"), commit="1"),
            Source("owner/model", Path("here"), commit=commit),
        )
        generators.append(generator)
    config = VerifierConfig.from_generator(generators[0], "hidden:2", kind="language_model")
    expected = ["verifier v was trained on owner/model@old, this is owner/model@new: its verdicts may not hold"]
    assert list(config.mismatch_warnings(generators[1], "v")) == expected * warned


def test_calibrated_probabilities_come_true() -> None:
    """About 0.7 of the candidates with probability 0.7 are right."""
    draw = torch.Generator().manual_seed(1)
    truth = torch.rand(40_000, generator=draw, dtype=torch.float64)
    correct = torch.rand(len(truth), generator=draw, dtype=torch.float64) < truth
    overconfident = 3 * torch.logit(truth, eps=1e-9) + 2
    calibration = fit_calibration(overconfident.tolist(), correct.tolist())
    said = torch.tensor([calibration.probability(value) for value in overconfident.tolist()])
    for low in (0.0, 0.25, 0.5, 0.7, 0.9):
        among = (said >= low) & (said < low + 0.1)
        assert correct[among].double().mean().item() == pytest.approx(said[among].mean().item(), abs=0.03)


def test_the_probability_grows_with_the_log_odds() -> None:
    calibration = Calibration(temperature=0.5, bias=-1.0)
    steps = [calibration.probability(value / 10) for value in range(-100, 101)]
    assert steps == sorted(set(steps))
    assert calibration.probability(0.5) == pytest.approx(0.5)
    assert calibration.probability(0.0) == pytest.approx(1 / (1 + math.e))


@pytest.mark.parametrize("log_odds", [-1e9, 1e9, -math.inf, math.inf])
def test_extreme_log_odds_stay_within_bounds(log_odds: float) -> None:
    assert 0 <= Calibration(temperature=1e-3, bias=0).probability(log_odds) <= 1


def test_a_temperature_must_be_positive() -> None:
    for temperature in (0, -1):
        with pytest.raises(ValidationError, match="temperature"):
            Calibration(temperature=temperature, bias=0)


@pytest.mark.parametrize("size", [0, -64, 123456789012345678901])
def test_a_size_that_no_model_has_is_refused(size: int) -> None:
    with pytest.raises(ValidationError, match="width"):
        Architecture(**ARCHITECTURE.model_dump() | {"width": size})
    with pytest.raises(ValidationError, match="spatial_merge_size"):
        LanguageModelVerifierConfig(
            generator=None, generator_fingerprint=None, reads="hidden:2", width=4, spatial_merge_size=size
        )
