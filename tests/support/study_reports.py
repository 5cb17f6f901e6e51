"""Made-up report of a study."""

from typing import Any

from forejudge.evaluation.bootstrap import Interval
from forejudge.evaluation.study_report import StudyReport, VariantReport


def study_report(**variants: dict[str, Any]) -> StudyReport:
    """Make a report whose variants have these fields and share the others."""
    return StudyReport(
        provenance={},
        n=8,
        steps=700,
        training_seeds=2,
        test_cases=6,
        test_seeds=1,
        generator_fingerprint="0123456789abcdef",
        variants={name: VariantReport(**_SHARED_FIGURES | fields) for name, fields in variants.items()},
    )


def interval(estimate: float) -> Interval:
    return Interval(estimate, estimate - 0.1, estimate + 0.1)


_SHARED_FIGURES = {
    "reads": "hidden:2",
    "language_model_parameters": 65_432,
    "generator_fingerprint": "0123456789abcdef",
    "best_of_1": interval(0.61),
    "oracle": interval(0.87),
    "best_of_n": interval(0.75),
    "oracle_gap_closed": interval(0.54),
    "oracle_gap_closed_per_seed": [0.5, 0.58],
    "pair_accuracy": interval(0.8),
    "auroc": 0.9,
    "expected_calibration_error": 0.01,
}
