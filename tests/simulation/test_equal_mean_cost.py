"""Everything at equal mean cost, against the same searches by hand."""

from dataclasses import replace
from math import isclose

import numpy as np
import pytest

from forejudge.evaluation.build_report import Baseline
from forejudge.evaluation.report import MeanCostRow
from forejudge.simulation.equal_mean_cost import mean_cost_rows
from forejudge.simulation.families import RuleFamily
from forejudge.simulation.recording import Recording
from forejudge.simulation.simulate import UnitCosts
from tests.support.recordings import recording

LATE = [[0.2, 0.6, 0.9, 0.4], [0.95, 0.1, 0.2, 0.3], [0.3, 0.3, 0.2, 0.1]]
CORRECT = [[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]]
SECOND = [[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
EARLY = [[0.9, 0.8, 0.1, 0.2], [0.4, 0.5, 0.6, 0.7], [0.1, 0.2, 0.3, 0.4]]
MADE_UP = recording(LATE, CORRECT, SECOND, EARLY)
CANDIDATES = UnitCosts.in_candidates()


def rows(*families: str, made_up: Recording = MADE_UP, baseline: float | None = None) -> list[MeanCostRow]:
    one_image = replace(MADE_UP.outcomes, correct_CSN=np.array([[[True]], [[False]], [[False]]]))
    baselines = {} if baseline is None else {"2 steps": (Baseline(one_image, 2), baseline)}
    costs = {"late": CANDIDATES, "early": UnitCosts("candidates", {1: 1.5, 4: 6.0})}
    return mean_cost_rows(made_up, costs, [RuleFamily.parse(each) for each in families], baselines)


def row(found: list[MeanCostRow], budget: float, verifier: str | None, policy: str) -> MeanCostRow:
    (one,) = [
        each for each in found if (each.verifier, each.policy) == (verifier, policy) and isclose(each.budget, budget)
    ]
    return one


def test_budgets_are_costs_of_the_first_verifiers_fixed_n() -> None:
    found = rows("until")
    assert [each.budget for each in found if (each.verifier, each.policy) == ("late", "fixed")] == [2, 4]
    first = row(found, 4, "late", "fixed")
    assert (first.settings, first.cost, first.micro.estimate, first.lead.estimate) == ({"n=4": 1.0}, 4, 0.6667, 0)


def test_another_verifier_mixes_two_n_to_the_budget() -> None:
    """At 1.5 a candidate a budget of 4 is two thirds of the way from N = 2 to N = 3; the first has one of 4."""
    early = row(rows(), 4, "early", "fixed")
    assert early.settings == {"n=2": 0.3333, "n=3": 0.6667}
    assert early.cost == pytest.approx(4)
    assert early.candidates.mean == pytest.approx(8 / 3, abs=1e-4)
    assert (early.candidates.p50, early.candidates.p99) == (3, 3)
    n_2, n_3 = [0, 0, 1], [0, 0, 0]  # winners 0, 1, 1 and 0, 2, 2
    outcome = [(one + 2 * other) / 3 for one, other in zip(n_2, n_3, strict=True)]
    assert early.micro.estimate == pytest.approx(np.mean(outcome), abs=1e-4)
    assert early.lead.estimate == pytest.approx(np.mean(outcome) - 2 / 3, abs=1e-4)
    assert early.task_leads["colors"].estimate == -1


def test_a_policy_is_set_by_the_budget_and_not_by_labels() -> None:
    """Pairs cost 4, 2 and 4 with "until 0.9", and 2, 2 and 4 with "until 0.6"."""
    found = row(rows("until,refine_below=0.9"), 4, "late", "until,refine_below=0.9")
    assert found.cost == pytest.approx(4)
    assert sum(found.settings.values()) == pytest.approx(1, abs=1e-4)
    right = [[1 - label for label in labels] for labels in CORRECT]
    swapped = recording(LATE, right, [[1 - label for label in labels] for labels in SECOND], EARLY)
    again = row(rows("until,refine_below=0.9", made_up=swapped), 4, "late", "until,refine_below=0.9")
    assert (again.settings, again.candidates) == (found.settings, found.candidates)
    assert again.micro.estimate == pytest.approx(1 - found.micro.estimate, abs=1e-4)


def test_one_rule_and_a_baseline_are_compared_at_their_own_cost() -> None:
    found = rows("n=2,refine_below=0.9", baseline=3.0)
    alone = row(found, 2 + 2 / 3 * 1.41, "late", "n=2,refine_below=0.9")
    assert alone.micro.estimate == 1
    assert alone.second_steps == pytest.approx(2 / 3)
    fixed_2, fixed_3, share = 1 / 3, 2 / 3, 2 / 3 * 1.41
    assert alone.lead.estimate == pytest.approx(1 - ((1 - share) * fixed_2 + share * fixed_3), abs=1e-4)
    baseline = row(found, 3, None, "2 steps")
    assert (baseline.micro.estimate, baseline.lead.estimate) == (0.3333, -0.3333)
    assert (baseline.settings, baseline.candidates.mean) == ({}, 1)
    assert not [each for each in rows(baseline=0.5) if each.verifier is None], "the first has no candidate for it"


def test_a_verifier_without_a_prior_has_no_price() -> None:
    assert {each.verifier for each in rows("price") if each.policy == "price"} == {"late"}


def test_second_evaluators_see_the_images_of_the_same_winners() -> None:
    held_out = np.array([[[0, 0, 0, 0]], [[1, 1, 1, 1]], [[0, 0, 0, 0]]], np.bool_)
    outcomes = replace(MADE_UP.outcomes, second_correct_CSN={"held out": held_out})
    recorded = replace(outcomes, second_step_second_correct_CSN={"held out": np.ones((3, 1, 4))})
    without, with_second = (
        [
            each
            for each in rows("n=2,refine_below=0.9", made_up=replace(MADE_UP, outcomes=each))
            if each.verifier == "late"
        ]
        for each in (outcomes, recorded)
    )
    assert without[0].second_evaluators["held out"].estimate == pytest.approx(1 / 3, abs=1e-4)
    assert without[-1].second_evaluators == {}, "what they say of second steps was not recorded"
    assert with_second[-1].second_evaluators["held out"].estimate == 1
