"""Figures of a study that nobody has run."""

from typing import Any


def study_figures(**of_variants: dict[str, Any]) -> dict[str, Any]:
    """By variant what is unlike the others'."""
    return {
        "test_cases": 6,
        "test_seeds": 1,
        "training_seeds": 2,
        "steps": 700,
        "variants": {name: _ALIKE | fields for name, fields in of_variants.items()},
    }


def estimated(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.1}


_ALIKE = {
    "reads": "hidden:2",
    "language_model_parameters": 65_432,
    "generator_fingerprint": "0123456789abcdef",
    "best_of_1": estimated(0.61),
    "perfect_judge": estimated(0.87),
    "best_of_8": estimated(0.75),
    "distance_closed": estimated(0.54),
    "distance_closed_of_each_seed": [0.5, 0.58],
    "pair_accuracy": estimated(0.8),
    "auroc": 0.9,
    "expected_calibration_error": 0.01,
}
