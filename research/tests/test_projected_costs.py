"""Projected costs: the committed report's, counted again, and the table they give."""

from pathlib import Path

import pytest

from forejudge.evaluation.equal_cost import BUDGET_NS, CostCurve
from forejudge.evaluation.report import EvaluationReport
from forejudge.simulation.families import RuleFamily
from forejudge.simulation.simulate import UnitCosts
from research.figures.projected_costs import (
    BLOCKS,
    CostProjection,
    InputPoint,
    StageFlops,
    projected_report,
    sana_sprint_flops,
)
from tests.support.recordings import recording
from tests.support.stand_in_outcomes import outcomes


@pytest.fixture(scope="module")
def flops() -> StageFlops:
    return sana_sprint_flops()


def test_flops_of_the_published_models(flops: StageFlops) -> None:
    """TFLOP by PyTorch's own counter. The paper saves 62.9 % against a baseline that encodes the prompt every time."""
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


def test_the_committed_projection_is_what_is_counted(repository: Path, flops: StageFlops) -> None:
    report = EvaluationReport.read(repository / "benchmarks" / "miniature.json")
    assert report.projected is not None
    reads = {
        "verifier": InputPoint("hidden", BLOCKS // 2),
        "last-block": InputPoint("hidden", BLOCKS),
        "latent": InputPoint("latent", BLOCKS),
        "clip": InputPoint("clip", BLOCKS),
    }
    assert flops.stage_flops(reads) == report.projected.stage_flops
    fixed, per_candidate = flops.search_flops(reads["verifier"])
    budgets = [(fixed + n * per_candidate) / 1e12 for n in BUDGET_NS]
    assert list(dict.fromkeys(row.budget for row in report.projected.equal_cost)) == pytest.approx(budgets)


def test_verifiers_get_the_n_that_their_projected_cost_allows() -> None:
    curves = {"knows": CostCurve.linear(10, 5), "contrary": CostCurve.linear(0, 14)}
    projected = projected_report(outcomes(), CostProjection(curves, {}, {"encode": 1}))
    assert {(row.budget, row.strategy): row.n for row in projected.equal_cost} == {
        (20, "knows"): 2,
        (20, "contrary"): 1,
        (30, "knows"): 4,
        (30, "contrary"): 2,
    }


def test_a_search_of_parts_costs_what_the_whole_search_does(flops: StageFlops) -> None:
    """A second step runs all blocks; where images are read, they are decoded again."""
    for input_point in (InputPoint("hidden", BLOCKS // 2), InputPoint("clip", BLOCKS)):
        costs, (fixed, per_candidate) = flops.unit_costs(input_point), flops.search_flops(input_point)
        whole = costs.encode + costs.of_batch(7) + costs.finish
        assert whole == pytest.approx((fixed + 7 * per_candidate) / 1e12)
        decoded_again = flops.decode if input_point.kind == "clip" else 0
        assert costs.second_step == pytest.approx((BLOCKS * flops.block + decoded_again) / 1e12)


def test_searches_of_a_recording_have_rows_at_equal_mean_cost() -> None:
    made_up = recording([[0.2, 0.6, 0.9], [0.95, 0.1, 0.2]], [[0, 0, 1], [1, 0, 0]])
    curves, costs = {"late": CostCurve.linear(10, 5)}, {"late": UnitCosts("TFLOP", {1: 5.0, 32: 160.0}, encode=10)}
    projection = CostProjection(curves, costs, {})
    rows = projected_report(made_up.outcomes, projection, made_up, [RuleFamily.parse("until")]).equal_mean_cost
    assert [(row.budget, row.policy) for row in rows] == [(20, "fixed"), (20, "until")]
    assert projected_report(made_up.outcomes, projection).equal_mean_cost == []
