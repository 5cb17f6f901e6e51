"""Expected improvement against integrals and samples computed another way, and the prior against known ones."""

import numpy as np
import pytest

from forejudge.expected_improvement import NextLogOdds, Prior, fit_prior, log_odds

PRIOR = Prior(mean=3.0, weight=2.0, min_deviation=0.5)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.1), (1.5, 1.0), (-4.0, 3.0), (2.0, 8.0)])
@pytest.mark.parametrize("best", [0.0, 0.3, 0.95])
def test_one_candidate_improves_as_gauss_and_hermite_integrate(mean: float, deviation: float, best: float) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(150)
    gains = np.maximum(sigmoid(mean + deviation * nodes) - best, 0)
    expected = float(weights @ gains / weights.sum())
    smooth = best == 0.0  # elsewhere their rule errs at the kink
    assert NextLogOdds(mean, deviation).improvement(best, 1) == pytest.approx(expected, abs=1e-4 if smooth else 0.01)


def test_several_candidates_improve_as_the_best_of_samples() -> None:
    x = np.random.default_rng(0).normal(0.4, 1.3, (200_000, 4))
    sampled = np.maximum(sigmoid(x.max(axis=1)) - 0.7, 0).mean()
    assert NextLogOdds(0.4, 1.3).improvement(0.7, 4) == pytest.approx(sampled, abs=1e-3)


@pytest.mark.parametrize(("mean", "best", "gain"), [(100.0, 0.25, 0.75), (-100.0, 0.25, 0.0), (0.0, 1.0, 0.0)])
def test_the_ends_are_exact(mean: float, best: float, gain: float) -> None:
    assert NextLogOdds(mean, 1.0).improvement(best, 2) == pytest.approx(gain, abs=1e-12)


@pytest.mark.parametrize("deviation", [0.1, 1.0, 3.0])
def test_the_integral_errs_by_less_than_a_millionth(deviation: float) -> None:
    """Log-odds that lie around 0 alike on both sides have a mean probability of one half."""
    assert NextLogOdds(0.0, deviation).improvement(0.0, 1) == pytest.approx(0.5, abs=1e-6)


def test_what_cannot_improve_is_no_rounding_error() -> None:
    assert NextLogOdds(-60.0, 0.1).improvement(0.9, 2) == 0.0


def test_the_next_candidate_is_between_the_prompt_and_the_prior() -> None:
    assert NextLogOdds.after([], PRIOR) == NextLogOdds(3.0, 0.5)
    one = NextLogOdds.after([0.5], PRIOR)
    assert (one.mean, one.deviation) == pytest.approx((2.0, 0.5))
    two = NextLogOdds.after(sigmoid(np.array([-1.0, 1.0])).tolist(), PRIOR)
    assert (two.mean, two.deviation) == pytest.approx((1.5, 2**0.5))
    three = NextLogOdds.after(sigmoid(np.array([-2.0, 0.0, 2.0])).tolist(), PRIOR)
    assert (three.mean, three.deviation) == pytest.approx((1.2, 2.0))


def test_log_odds_stay_finite() -> None:
    assert log_odds([0.0, 0.5, 1.0]).tolist() == [-30.0, 0.0, 30.0]


def test_the_fitted_prior_predicts_improvements() -> None:
    """Prompts deviate by 3 and their candidates by 1; a first one has no deviation of its own yet."""
    rng = np.random.default_rng(1)
    prompts = sigmoid(rng.normal(0.5, 3, (60, 1)) + rng.normal(0, 1, (60, 8)))
    prior = fit_prior(prompts.tolist())
    assert prior.mean == pytest.approx(log_odds(prompts).mean())
    assert prior.weight < 1
    assert prior.min_deviation in (0.7, 1.0, 1.4)
    predicted, realized = 0.0, 0.0
    for probabilities in prompts.tolist():
        for n in range(1, 8):
            best = max(probabilities[:n])
            predicted += NextLogOdds.after(probabilities[:n], prior).improvement(best, 1)
            realized += max(probabilities[n] - best, 0)
    assert predicted == pytest.approx(realized, rel=0.2)


def test_two_candidates_of_each_prompt_are_enough_for_a_prior() -> None:
    rng = np.random.default_rng(1)
    priors = [fit_prior(sigmoid(rng.normal(0, deviation, (100, 2))).tolist()) for deviation in (0.5, 3.0)]
    assert priors[0].min_deviation < 1 < priors[1].min_deviation
