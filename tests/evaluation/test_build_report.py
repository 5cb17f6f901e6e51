"""The report of an evaluation: from known outcomes, and from a run with second evaluators."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL.Image import Image

from forejudge.candidates.collect import EvaluationCollector
from forejudge.candidates.evaluation_store import EvaluationStore
from forejudge.errors import InvalidRequest
from forejudge.evaluation import suite
from forejudge.evaluation.build_report import (
    VerifierWeights,
    agreement_intervals,
    build_report,
    oracle_gap_closed_interval,
    ranking_metrics,
)
from forejudge.evaluation.report import EvaluationCosts, EvaluationReport
from forejudge.evaluation.strategies import Outcomes, load_outcomes
from forejudge.evaluators.base import Evaluation, Evaluator
from forejudge.evaluators.benchmarks import Benchmark, second_evaluators_of
from forejudge.evaluators.loading import GenEvalModels
from forejudge.generators import load_generator
from forejudge.miniature.classifier import new_classifier
from forejudge.miniature.prompts import sample_prompt_lines
from forejudge.profiling.figures import SearchCosts
from forejudge.progress import Shard, ignore_progress
from forejudge.prompts.prompt_file import PromptLine
from forejudge.verifiers import load_verifier
from tests.support.command import CommandLine, refusal
from tests.support.made_up_evaluation import SETTINGS
from tests.support.stand_in_outcomes import outcomes as stand_in_outcomes

CPU = torch.device("cpu")
LINES = sample_prompt_lines(3, "validation", 0)


class ByPixel(Evaluator):
    """Call an image right where its byte at `place` is odd, or even."""

    def __init__(self, name: str, place: int, odd: bool = True) -> None:
        self.name, self._place, self._odd = name, place, odd

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        return [Evaluation(image.tobytes()[self._place] % 2 == self._odd, "") for image in images]


def known_outcomes() -> Outcomes:
    """60 cases, 2 seeds, 4 candidates: a verifier knows the first evaluator, of which one second is independent."""
    source = np.random.default_rng(0)
    first, other = source.random((60, 2, 4)) < 0.4, source.random((60, 2, 4)) < 0.4
    return Outcomes(
        prompts=[f"prompt {n // 2}" for n in range(60)],
        tasks=["counting"] * 60,
        correct_CSN=first,
        score_CSN={"knows the first": first.astype(float)},
        probability_CSN={},
        second_correct_CSN={"same": first, "opposite": ~first, "other": other},
    )


def report_of(outcomes: Outcomes, ns: Sequence[int], combined: Sequence[VerifierWeights] = ()) -> EvaluationReport:
    """Build a report without baselines, in which one more candidate costs a millisecond."""
    search = SearchCosts(milliseconds={1: 1.0, 2: 2.0}, fixed_flops=0, candidate_flops=1, scoring_bytes={8: 1})
    searches = dict.fromkeys(outcomes.score_CSN, search)
    costs = EvaluationCosts(provenance={}, searches=searches, baseline_ms={}, stage_flops={})
    return build_report({}, SETTINGS, outcomes, ns, combined, {}, costs, budgets=[1])


def evaluation_of(
    generator: Path, verifier: Path, others: Sequence[Evaluator], evaluator: Evaluator | None = None
) -> EvaluationCollector:
    benchmark = Benchmark("three prompts", LINES, evaluator or ByPixel("first", 0))
    return EvaluationCollector(
        load_generator(str(generator), CPU, torch.float32),
        {"tiny": load_verifier(str(verifier), CPU, torch.float32)},
        benchmark,
        candidates=3,
        second_evaluators=second_evaluators_of(benchmark, others),
    )


def test_agreement_and_kappa_of_a_known_table() -> None:
    """20 right by both, 15 wrong by both, 5 and 10 either way: 0.7 agree, 0.5 by chance."""
    one = np.repeat([True, True, False, False], [20, 5, 10, 15]).reshape(50, 1, 1)
    other = np.repeat([True, False, True, False], [20, 5, 10, 15]).reshape(50, 1, 1)
    agreement, kappa = agreement_intervals([str(n) for n in range(50)], one, other)
    assert agreement.estimate == 0.7
    assert kappa.estimate == 0.4
    assert kappa.low < 0.4 < kappa.high


def test_kappa_is_nan_where_all_are_right() -> None:
    agreement, kappa = agreement_intervals(["a", "b"], np.ones((2, 1, 3), bool), np.ones((2, 1, 3), bool))
    assert agreement.estimate == 1
    assert np.isnan(kappa.estimate)


def test_a_gain_by_the_first_evaluator_is_none_by_another() -> None:
    outcomes = known_outcomes()
    report = report_of(outcomes, [1, 4])
    section = report.second_evaluators
    assert section["same"].cohens_kappa.estimate == 1
    assert section["opposite"].cohens_kappa.estimate < -0.8
    rows = {name: {(row.n, row.strategy): row.micro for row in second.best_of_n} for name, second in section.items()}
    first = {(row.n, row.strategy): row.micro for row in report.best_of_n}
    assert all(rows["same"][key] == micro for key, micro in first.items())
    assert rows["same"][4, "knows the first"].estimate > 0.8
    assert rows["other"][4, "knows the first"].estimate == pytest.approx(rows["other"][4, "random"].estimate, abs=0.1)
    assert rows["other"][4, "first evaluator"] == rows["other"][4, "knows the first"]
    assert rows["other"][4, "oracle"].estimate == pytest.approx(
        outcomes.second_correct_CSN["other"].any(axis=2).mean(), abs=1e-4
    )


def test_without_second_evaluators_the_section_is_empty() -> None:
    assert report_of(stand_in_outcomes(), [1]).second_evaluators == {}


def test_every_row_says_what_each_evaluator_says(tiny_generator: Path, tiny_verifier: Path, tmp_path: Path) -> None:
    same, opposite, other = ByPixel("same", 0), ByPixel("opposite", 0, odd=False), ByPixel("other", 3000)
    folder = EvaluationStore(tmp_path)
    evaluation_of(tiny_generator, tiny_verifier, [same, opposite, other]).run(folder, Shard(1, 1), ignore_progress)
    assert folder.settings.second_evaluators == ("same", "opposite", "other")
    for row in folder.rows(0):
        assert row["second_correct"].keys() == {"same", "opposite", "other"}
        assert row["second_correct"]["same"] == row["correct"] != row["second_correct"]["opposite"]
    outcomes = load_outcomes(folder)
    assert (outcomes.second_correct_CSN["same"] == outcomes.correct_CSN).all()
    alone = EvaluationStore(tmp_path / "alone")
    evaluation_of(tiny_generator, tiny_verifier, [], evaluator=other).run(alone, Shard(1, 1), ignore_progress)
    assert (outcomes.second_correct_CSN["other"] == load_outcomes(alone).correct_CSN).all()


def test_a_folder_goes_on_with_the_same_evaluators_only(
    tiny_generator: Path, tiny_verifier: Path, tmp_path: Path
) -> None:
    folder, part = EvaluationStore(tmp_path), Shard(1, 3)
    evaluation_of(tiny_generator, tiny_verifier, [ByPixel("other", 9)]).run(folder, part, ignore_progress)
    before = folder.settings
    evaluation_of(tiny_generator, tiny_verifier, [ByPixel("other", 9)]).run(folder, Shard(1, 1), ignore_progress)
    assert folder.settings == before
    assert folder.missing == []
    with pytest.raises(
        InvalidRequest, match=r"second_evaluators = \('other',\), this run has second_evaluators = \(\)"
    ):
        evaluation_of(tiny_generator, tiny_verifier, []).run(folder, Shard(1, 1), ignore_progress)


def test_an_evaluator_named_twice_is_refused() -> None:
    benchmark = Benchmark("three prompts", LINES, ByPixel("first", 0))
    with pytest.raises(InvalidRequest, match="one evaluator is named twice among first, first"):
        second_evaluators_of(benchmark, [ByPixel("first", 3)])


def test_the_command_reports_both_evaluators(
    tiny_generator: Path, tiny_verifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new_classifier(4).half().save_pretrained(tmp_path / "reader")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f"{line.metadata}\n" for line in LINES))
    asked = ["--generator", str(tiny_generator), "--verifier", str(tiny_verifier), "--benchmark", str(prompts)]
    asked += ["--evaluator", "geneval-miniature", "--second-evaluator", f"classifier-miniature:{tmp_path / 'reader'}"]
    asked += ["--n", "1,2", "--budget-ms", "100000", "--seeds", "1", "--device", "cpu", "--out", str(tmp_path / "out")]
    command = CommandLine(capsys)
    shown = command("eval", *asked)
    assert shown.status == 0, shown
    assert "Cohen's kappa" in shown.out
    (name,) = json.loads((tmp_path / "out" / "figures.json").read_text())["second_evaluators"]
    assert name.startswith("classifier-miniature (reader ")
    assert "named twice" in refusal(command("eval", *asked, "--second-evaluator", "geneval-miniature"), 2)
    assert "go with the evaluator geneval" in refusal(command("eval", *asked, "--detector", "eyes"), 2)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("geneval", "other", [("geneval", "eyes"), ("other", None)]),
        ("other", "geneval", [("other", None), ("geneval", "eyes")]),
        ("other", "another", [("other", "eyes"), ("another", "eyes")]),  # refused by `load_evaluator`
    ],
)
def test_a_detector_goes_to_geneval_whether_it_is_first_or_second(
    monkeypatch: pytest.MonkeyPatch, first: str, second: str, expected: list[tuple[str, str | None]]
) -> None:
    loaded: list[tuple[str, str | None]] = []

    def load(name: str, models: GenEvalModels) -> Evaluator:
        loaded.append((name, models.detector))
        return ByPixel(name, 0)

    monkeypatch.setattr(suite, "load_evaluator", load)
    options = suite.EvaluationOptions(
        "miniature", ["miniature"], "geneval-miniature", [1], first, detector="eyes", second_evaluators=[second]
    )
    options.load_evaluators(CPU)
    assert loaded == expected


OUTCOMES = stand_in_outcomes()


def test_the_report_has_a_row_for_each_n_and_strategy(tmp_path: Path) -> None:
    built = report_of(OUTCOMES, [1, 4], [{"knows": 1, "contrary": 0.5}])
    built.write(tmp_path / "figures.json")
    report = EvaluationReport.read(tmp_path / "figures.json")
    assert report == built
    rows = {(row.n, row.strategy): row for row in report.best_of_n}
    combined = ["mean rank of knows, contrary", "log-odds of knows, 0.5 contrary"]
    assert {name for _, name in rows} == {"knows", "contrary", "silent", "random", "oracle", *combined}
    assert rows[4, "knows"].micro == rows[4, "oracle"].micro == rows[4, combined[1]].micro
    assert rows[1, "knows"] == rows[1, "random"].model_copy(update={"strategy": "knows"})
    assert rows[4, "random"].micro.estimate == pytest.approx(OUTCOMES.correct_CSN.mean(), abs=1e-4)
    assert rows[4, "knows"].micro.low < rows[4, "knows"].micro.estimate
    assert (report.test_cases, report.distinct_prompts, report.seeds, report.candidates) == (60, 30, 2, 4)


def test_the_first_verifier_is_compared_with_every_other_strategy() -> None:
    leads = {(row.n, row.other): row.lead for row in report_of(OUTCOMES, [1, 4]).leads}
    assert set(leads) == {(4, name) for name in ("contrary", "silent", "random", "oracle")}
    assert leads[4, "oracle"].p == 1
    assert leads[4, "random"].p < 0.01
    assert leads[4, "random"].estimate > 0


def test_oracle_gap_closed_is_whole_for_a_verifier_that_knows() -> None:
    assert oracle_gap_closed_interval(OUTCOMES, ["knows"], 4).estimate == 1
    assert oracle_gap_closed_interval(OUTCOMES, ["contrary"], 4).estimate < 0
    both = oracle_gap_closed_interval(OUTCOMES, ["knows", "contrary"], 4).estimate
    assert both == pytest.approx((1 + oracle_gap_closed_interval(OUTCOMES, ["contrary"], 4).estimate) / 2, abs=1e-3)


def test_oracle_gap_closed_is_measured_from_the_first_candidate() -> None:
    """By hand: the picks are right in 3 of 4 cases, the first candidates in 2, the oracle in 4: (3 - 2) / (4 - 2).

    Measured from a random one of both, which is right in 2.5 cases on average, it would be a third.
    """
    correct_CSN = np.array([[[0, 1]], [[1, 0]], [[0, 1]], [[1, 1]]], bool)
    picks_second = np.array([1, 0, 0, 0])
    score_CSN = np.stack([1.0 - picks_second, picks_second], axis=1)[:, None]
    outcomes = Outcomes(list("abcd"), ["colors"] * 4, correct_CSN, {"by hand": score_CSN}, {})
    assert oracle_gap_closed_interval(outcomes, ["by hand"], 2).estimate == 0.5
    report = report_of(outcomes, [1, 2])
    assert report.verifiers["by hand"].oracle_gap_closed[2].estimate == 0.5
    accuracies = {(row.strategy, row.n): row.micro.estimate for row in report.best_of_n}
    assert {key: accuracies[key] for key in (("by hand", 2), ("by hand", 1), ("random", 2), ("oracle", 2))} == {
        ("by hand", 2): 0.75, ("by hand", 1): 0.5, ("random", 2): 0.625, ("oracle", 2): 1,
    }  # fmt: skip


def test_the_interval_of_the_gap_is_that_of_resampled_first_candidates() -> None:
    """Each resample has its own first candidates: where the picks are the oracle's, all of them close the whole gap."""
    knows = oracle_gap_closed_interval(OUTCOMES, ["knows"], 4)
    assert (knows.low, knows.high) == (1, 1)
    first = Outcomes(
        OUTCOMES.prompts, OUTCOMES.tasks, OUTCOMES.correct_CSN, {"first": -np.indices((60, 2, 4))[2].astype(float)}, {}
    )
    blind = oracle_gap_closed_interval(first, ["first"], 4)
    assert (blind.estimate, blind.low, blind.high) == (0, 0, 0)


def test_the_gap_is_reported_at_8_candidates_where_there_are_more() -> None:
    outcomes = stand_in_outcomes(cases=12, candidates=9)
    assert report_of(outcomes, [1]).verifiers["knows"].oracle_gap_closed.keys() == {8}


def test_ranking_figures_of_knowing_of_the_contrary_and_of_silence() -> None:
    knows, contrary, silent = (ranking_metrics(OUTCOMES, name) for name in ("knows", "contrary", "silent"))
    assert (knows.auroc, knows.pair_accuracy.estimate, knows.expected_calibration_error) == (1, 1, 0)
    assert (contrary.auroc, contrary.pair_accuracy.estimate) == (0, 0)
    assert contrary.expected_calibration_error == 1
    assert (silent.expected_calibration_error, silent.tie_rate) == (None, 1)
    assert 0 < knows.tie_rate < 1
