"""Figures of a study that nobody has run."""

from typing import Any


def study_figures(**variants: dict[str, Any]) -> dict[str, Any]:
    """By variant what is unlike the others'."""
    return {
        "test_cases": 6,
        "test_seeds": 1,
        "training_seeds": 2,
        "steps": 700,
        "variants": {name: _SHARED_FIGURES | fields for name, fields in variants.items()},
    }


def interval(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.1}


_SHARED_FIGURES = {
    "reads": "hidden:2",
    "language_model_parameters": 65_432,
    "generator_fingerprint": "0123456789abcdef",
    "best_of_1": interval(0.61),
    "oracle": interval(0.87),
    "best_of_8": interval(0.75),
    "oracle_gap_closed": interval(0.54),
    "oracle_gap_closed_per_seed": [0.5, 0.58],
    "pair_accuracy": interval(0.8),
    "auroc": 0.9,
    "expected_calibration_error": 0.01,
}
