"""Builds an evaluation's report from outcomes: Best-of-N, rankings, leads and second evaluators. Pure functions.

Shapes: C cases, S seeds, N candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from forejudge.candidates.evaluation_store import EvaluationSettings
from forejudge.evaluation.bootstrap import Interval, bootstrap_figure, bootstrap_mean
from forejudge.evaluation.equal_cost import (
    CostCurve,
    CostedStrategy,
    competitor_table,
    equal_cost_table,
    reference_budgets,
    resampled_rounds,
)
from forejudge.evaluation.metrics import (
    BoolArray,
    FloatArray,
    area_under_roc,
    expected_calibration_error,
    oracle_gap_closed,
    pair_wins,
)
from forejudge.evaluation.report import (
    FIRST_EVALUATOR,
    ORACLE,
    RANDOM,
    BestOfNRow,
    EvaluationCosts,
    EvaluationReport,
    LeadRow,
    RankingMetrics,
    SecondEvaluator,
    SecondEvaluatorRow,
    VerifierReport,
)
from forejudge.evaluation.strategies import (
    Outcomes,
    ScoreFunction,
    SelectionStrategy,
    best_score_strategy,
    mean_rank,
    oracle_strategy,
    random_strategy,
    tie_rate,
    verifier_scores,
    weighted_sum,
)

GAP_CLOSED_AT_N = 8
"""N at which the oracle gap closed is reported, or the number of candidates where there are fewer."""

VerifierWeights = Mapping[str, float]
"""Verifiers to combine, by name, with the weight of each one's log-odds."""


@dataclass(frozen=True)
class Baseline:
    """One image per case without a verifier, made with `steps` denoising steps."""

    outcomes: Outcomes
    steps: int

    def strategy(self, outcomes: Outcomes, n: int) -> FloatArray:
        """Pick the one image there is, whatever the candidates of a search."""
        return random_strategy(self.outcomes, 1)


def build_report(
    provenance: Mapping[str, str],
    settings: EvaluationSettings,
    outcomes: Outcomes,
    ns: Sequence[int],
    combined: Sequence[VerifierWeights],
    baselines: Mapping[str, Baseline],
    costs: EvaluationCosts,
    budgets: Sequence[float] | None = None,
) -> EvaluationReport:
    """Compute all figures at each of `ns`, and within each of `budgets` in milliseconds.

    Without budgets the costs of the first timed verifier set them, see `reference_budgets`. Raises InvalidRequest for
    a budget without room for one of its candidates.
    """
    combinations = combination_scores(combined)
    strategies = selection_strategies({name: verifier_scores(name) for name in outcomes.score_CSN} | combinations)
    timed = timed_strategies(costs, baselines)
    budgets_V = [np.array([budget], np.float64) for budget in budgets] if budgets else None
    return EvaluationReport(
        provenance=dict(provenance),
        settings=settings,
        test_cases=len(outcomes.prompts),
        distinct_prompts=len(set(outcomes.prompts)),
        seeds=outcomes.correct_CSN.shape[1],
        candidates=outcomes.candidates,
        best_of_n=best_of_n_rows(outcomes, strategies, ns),
        leads=lead_rows(outcomes, strategies, ns),
        verifiers={name: verifier_report(outcomes, name) for name in outcomes.score_CSN},
        combination_tie_rates={
            name: tie_rate(scores, outcomes, outcomes.candidates) for name, scores in combinations.items()
        },
        second_evaluators=second_evaluator_reports(outcomes, strategies, ns),
        baselines={name: each.outcomes.averages(each.strategy(outcomes, 1)) for name, each in baselines.items()},
        costs=costs,
        equal_time=equal_cost_table(
            outcomes, timed, budgets_V or reference_budgets(timed[0].curve, outcomes.candidates)
        ),
        competitor_time=competitor_table(outcomes, timed),
    )


def combination_scores(combined: Sequence[VerifierWeights]) -> dict[str, ScoreFunction]:
    """Score by each combination of verifiers in two ways: by mean rank and by the weighted sum of log-odds."""
    by_name: dict[str, ScoreFunction] = {}
    for weights in combined:
        by_name[f"mean rank of {', '.join(weights)}"] = mean_rank(list(weights))
        label = ", ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in weights.items())
        by_name[f"log-odds of {label}"] = weighted_sum(weights)
    return by_name


def selection_strategies(scores: Mapping[str, ScoreFunction]) -> dict[str, SelectionStrategy]:
    """Name the strategies that are compared: one for each score function, then random and oracle."""
    by_score = {name: best_score_strategy(score_function) for name, score_function in scores.items()}
    return {**by_score, RANDOM: random_strategy, ORACLE: oracle_strategy}


def best_of_n_rows(
    outcomes: Outcomes, strategies: Mapping[str, SelectionStrategy], ns: Sequence[int]
) -> list[BestOfNRow]:
    """Average the outcomes of each strategy at each N."""
    return [
        BestOfNRow(**dict(outcomes.averages(strategy(outcomes, n))), n=n, strategy=name)
        for n in ns
        for name, strategy in strategies.items()
    ]


def lead_rows(outcomes: Outcomes, strategies: Mapping[str, SelectionStrategy], ns: Sequence[int]) -> list[LeadRow]:
    """Compare the first strategy with each other one at each N above 1."""
    first, *others = strategies
    return [
        LeadRow(
            n=n,
            first=first,
            other=other,
            lead=outcomes.lead(strategies[first](outcomes, n), strategies[other](outcomes, n)),
        )
        for n in ns
        if n > 1
        for other in others
    ]


def verifier_report(outcomes: Outcomes, verifier: str) -> VerifierReport:
    """Compute a verifier's ranking metrics and the oracle gap it closes."""
    n = min(GAP_CLOSED_AT_N, outcomes.candidates)
    gap_closed = {n: oracle_gap_closed_interval(outcomes, [verifier], n)}
    return VerifierReport(oracle_gap_closed=gap_closed, **dict(ranking_metrics(outcomes, verifier)))


def ranking_metrics(outcomes: Outcomes, verifier: str) -> RankingMetrics:
    """Compute how well one verifier ranks all candidates."""
    probability = outcomes.probability_CSN.get(verifier)
    calibration = None if probability is None else expected_calibration_error(probability, outcomes.correct_CSN)
    return RankingMetrics(
        auroc=area_under_roc(outcomes.correct_CSN, outcomes.score_CSN[verifier]),
        pair_accuracy=pair_accuracy_interval(outcomes, [verifier]),
        expected_calibration_error=calibration,
        tie_rate=tie_rate(verifier_scores(verifier), outcomes, outcomes.candidates),
    )


def best_of_n_outcome(outcomes: Outcomes, verifiers: Sequence[str], n: int) -> FloatArray:
    """Return the Best-of-n outcome of each case (C,), averaged over the verifiers."""
    picks = [best_score_strategy(verifier_scores(name))(outcomes, n) for name in verifiers]
    outcome_C: FloatArray = np.mean(picks, axis=0)
    return outcome_C


def oracle_gap_closed_interval(outcomes: Outcomes, verifiers: Sequence[str], n: int) -> Interval:
    """Compute (Best-of-n - first candidate) / (oracle's Best-of-n - first candidate), averaged over the verifiers."""
    columns = [best_of_n_outcome(outcomes, verifiers, n), random_strategy(outcomes, 1), oracle_strategy(outcomes, n)]
    return bootstrap_figure(oracle_gap_closed, outcomes.prompts, *columns)


def pair_accuracy_interval(outcomes: Outcomes, verifiers: Sequence[str]) -> Interval:
    """Compute the share of pairs within a case and seed that the verifiers order correctly, on average."""
    candidates, by_case = outcomes.candidates, (len(outcomes.prompts), -1)
    correct_RN = outcomes.correct_CSN.reshape(-1, candidates)
    wins_and_pairs = [pair_wins(correct_RN, outcomes.score_CSN[name].reshape(-1, candidates)) for name in verifiers]
    columns = [np.mean([parts[index].reshape(by_case).mean(1) for parts in wins_and_pairs], axis=0) for index in (0, 1)]
    return bootstrap_figure(_ratio, outcomes.prompts, *columns)


def second_evaluator_reports(
    outcomes: Outcomes, strategies: Mapping[str, SelectionStrategy], ns: Sequence[int]
) -> dict[str, SecondEvaluator]:
    """Compare each second evaluator with the first, and score all strategies by it.

    A verifier that has learned the quirks of the evaluator that labeled its data gains by that evaluator alone. The
    oracle among the strategies then knows the second evaluator's verdicts; `first evaluator` knows the first's.
    """
    all_strategies = {**strategies, FIRST_EVALUATOR: _first_evaluator_strategy(outcomes)}
    return {
        name: _second_evaluator(outcomes, second_CSN, all_strategies, ns)
        for name, second_CSN in outcomes.second_correct_CSN.items()
    }


def _second_evaluator(
    outcomes: Outcomes, second_CSN: BoolArray, strategies: Mapping[str, SelectionStrategy], ns: Sequence[int]
) -> SecondEvaluator:
    second_outcomes = replace(outcomes, correct_CSN=second_CSN)
    agreement, cohens_kappa = agreement_intervals(outcomes.prompts, outcomes.correct_CSN, second_CSN)
    rows = [
        SecondEvaluatorRow(n=n, strategy=name, micro=bootstrap_mean(outcomes.prompts, strategy(second_outcomes, n)))
        for n in ns
        for name, strategy in strategies.items()
    ]
    return SecondEvaluator(agreement=agreement, cohens_kappa=cohens_kappa, best_of_n=rows)


def agreement_intervals(prompts: Sequence[str], one_CSN: BoolArray, other_CSN: BoolArray) -> tuple[Interval, Interval]:
    """Compute the share of candidates on which two evaluators agree, and Cohen's kappa (1960).

    Kappa is nan where both call all candidates right or all wrong.
    """
    columns = [array.mean(axis=(1, 2)) for array in (one_CSN == other_CSN, one_CSN, other_CSN)]
    return bootstrap_mean(prompts, columns[0]), bootstrap_figure(_kappa, prompts, *columns)


def _kappa(agreed: FloatArray, one: FloatArray, other: FloatArray) -> FloatArray:
    """Compute (observed - by chance) / (1 - by chance) from the shares that agree, and that each calls right."""
    by_chance = one * other + (1 - one) * (1 - other)
    return np.divide(agreed - by_chance, 1 - by_chance, out=np.full(np.shape(agreed), np.nan), where=by_chance < 1)


def _first_evaluator_strategy(outcomes: Outcomes) -> SelectionStrategy:
    """Return the strategy that picks a candidate the first evaluator calls right: the limit of what it can teach."""
    return best_score_strategy(lambda _, n: outcomes.correct_CSN[..., :n].astype(np.float64))


def timed_strategies(costs: EvaluationCosts, baselines: Mapping[str, Baseline]) -> list[CostedStrategy]:
    """Return a costed strategy for each timed verifier, then one for each baseline.

    Versions of all curves draw the same rounds of the timing; without rounds the medians are taken as they are.
    """
    drawn_VK = resampled_rounds(costs.rounds) if costs.rounds else None

    def curve(medians: Mapping[int, float], rounds: Mapping[int, Sequence[float]]) -> CostCurve:
        return CostCurve.of(medians) if drawn_VK is None else CostCurve.from_rounds(rounds, drawn_VK)

    curves = {name: curve(search.milliseconds, search.rounds_ms) for name, search in costs.searches.items()}
    single = [
        (name, each, curve({1: costs.baseline_ms[name]}, {1: costs.baseline_rounds_ms.get(name, ())}))
        for name, each in baselines.items()
    ]
    return verifier_strategies(curves) + [
        CostedStrategy(name, each.strategy, each_curve, each.steps, max_candidates=1)
        for name, each, each_curve in single
    ]


def verifier_strategies(curves: Mapping[str, CostCurve]) -> list[CostedStrategy]:
    """Return a costed strategy for each verifier, by its own score."""
    return [CostedStrategy(name, best_score_strategy(verifier_scores(name)), curve) for name, curve in curves.items()]


def _ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole != 0)
