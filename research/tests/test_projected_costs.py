"""Projected costs: the committed report's, counted again, and the table they give."""

from pathlib import Path

import pytest

from forejudge.evaluation.equal_cost import BUDGET_NS, CostCurve
from forejudge.evaluation.report import EvaluationReport
from research.figures.projected_costs import BLOCKS, CostProjection, InputPoint, projected_report, sana_sprint_flops
from tests.support.stand_in_outcomes import outcomes


def test_flops_of_the_published_models() -> None:
    """TFLOP by PyTorch's own counter. The paper saves 62.9 % against a baseline that encodes the prompt every time."""
    flops = sana_sprint_flops()
    in_tera = {name: round(value / 1e12, 2) for name, value in vars(flops).items()}
    assert in_tera == {
        "encode": 2.16,
        "block": 0.15,
        "decode": 8.37,
        "clip": 0.38,
        "preview": 0.95,
        "language_model_on_hidden": 0.91,
        "language_model_on_patches": 0.52,
    }
    fixed, each = flops.search_flops(InputPoint("hidden", 8))  # the paper's cut
    fixed_clip, each_clip = flops.search_flops(InputPoint("clip", BLOCKS))
    assert fixed - fixed_clip == flops.decode + 12 * flops.block, "the winner is finished once"
    assert 1 - each / each_clip == pytest.approx(0.83, abs=0.01)
    fixed_preview, each_preview = flops.search_flops(InputPoint("preview", BLOCKS))
    assert fixed_preview == fixed_clip + flops.decode, "the winner is decoded in full"
    assert each_clip - each_preview == flops.decode + flops.clip - flops.preview
    assert 1 - each / each_preview == pytest.approx(0.53, abs=0.01)
    assert flops.search_flops(InputPoint("hidden", BLOCKS)) == flops.search_flops(InputPoint("latent", BLOCKS))


def test_the_committed_projection_is_what_is_counted(repository: Path) -> None:
    report = EvaluationReport.read(repository / "benchmarks" / "miniature.json")
    assert report.projected is not None
    reads = {
        "verifier": InputPoint("hidden", BLOCKS // 2),
        "last-block": InputPoint("hidden", BLOCKS),
        "latent": InputPoint("latent", BLOCKS),
        "clip": InputPoint("clip", BLOCKS),
    }
    flops = sana_sprint_flops()
    assert flops.stage_flops(reads) == report.projected.stage_flops
    fixed, per_candidate = flops.search_flops(reads["verifier"])
    budgets = [(fixed + n * per_candidate) / 1e12 for n in BUDGET_NS]
    assert list(dict.fromkeys(row.budget for row in report.projected.equal_cost)) == pytest.approx(budgets)


def test_verifiers_get_the_n_that_their_projected_cost_allows() -> None:
    curves = {"knows": CostCurve.linear(10, 5), "contrary": CostCurve.linear(0, 14)}
    projected = projected_report(outcomes(), CostProjection(curves, {"encode": 1}))
    assert {(row.budget, row.strategy): row.n for row in projected.equal_cost} == {
        (20, "knows"): 2,
        (20, "contrary"): 1,
        (30, "knows"): 4,
        (30, "contrary"): 2,
    }
