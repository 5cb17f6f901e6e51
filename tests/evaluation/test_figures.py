"""All figures of an evaluation, from outcomes that are known."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL.Image import Image

from forejudge.candidates.collect import EvaluationCollector
from forejudge.candidates.store import EvaluationStore
from forejudge.cli import evaluate
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluation.figures import Contents, agreement, evaluation_metrics, read_layers
from forejudge.evaluation.intervals import oracle_gap_closed_interval, ranking_metrics
from forejudge.evaluation.strategies import Outcomes, load_outcomes
from forejudge.evaluators.base import Evaluation, Evaluator
from forejudge.evaluators.benchmarks import Benchmark, second_evaluators_of
from forejudge.evaluators.loading import GenEvalModels
from forejudge.generators import load_generator
from forejudge.miniature.classifier import new_classifier
from forejudge.miniature.prompts import sample_prompt_lines
from forejudge.progress import Shard, ignore_progress
from forejudge.prompts.prompt_file import PromptLine
from forejudge.verifiers import load_verifier
from tests.support.command import CommandLine, refusal
from tests.support.folders import copy_folder
from tests.support.stand_in_outcomes import outcomes

CPU = torch.device("cpu")
LINES = sample_prompt_lines(3, "validation", 0)


class ByPixel(Evaluator):
    """Right is a picture whose pixel at `place` is odd, or even."""

    def __init__(self, name: str, place: int, odd: bool = True) -> None:
        self.name, self._place, self._odd = name, place, odd

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        return [Evaluation(image.tobytes()[self._place] % 2 == self._odd, "") for image in images]


def known_outcomes() -> Outcomes:
    """60 cases, 2 seeds, 4 candidates: a second evaluator of another mind, and the verifier knows the first's."""
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
    """20 twice right, 15 twice wrong, 5 and 10 either way: 0.7 alike, 0.5 by chance."""
    one = np.repeat([True, True, False, False], [20, 5, 10, 15]).reshape(50, 1, 1)
    other = np.repeat([True, False, True, False], [20, 5, 10, 15]).reshape(50, 1, 1)
    metrics = agreement([str(n) for n in range(50)], one, other)
    assert metrics["agreement"]["estimate"] == 0.7
    assert metrics["cohens_kappa"]["estimate"] == 0.4
    assert metrics["cohens_kappa"]["low"] < 0.4 < metrics["cohens_kappa"]["high"]


def test_kappa_is_no_number_where_nothing_is_told_apart() -> None:
    metrics = agreement(["a", "b"], np.ones((2, 1, 3), bool), np.ones((2, 1, 3), bool))
    assert metrics["agreement"]["estimate"] == 1
    assert np.isnan(metrics["cohens_kappa"]["estimate"])


def test_a_gain_by_the_first_evaluator_is_none_by_another() -> None:
    outcomes = known_outcomes()
    found = evaluation_metrics(outcomes, [1, 4])
    section = found["second_evaluators"]
    assert section["same"]["cohens_kappa"]["estimate"] == 1
    assert section["opposite"]["cohens_kappa"]["estimate"] < -0.8
    rows = {name: {(row["n"], row["strategy"]): row["micro"] for row in section[name]["best_of_n"]} for name in section}
    first = {(row["n"], row["strategy"]): row["micro"] for row in found["best_of_n"]}
    assert all(rows["same"][key] == micro for key, micro in first.items())
    assert rows["same"][4, "knows the first"]["estimate"] > 0.8
    assert rows["other"][4, "knows the first"]["estimate"] == pytest.approx(
        rows["other"][4, "random"]["estimate"], abs=0.1
    )
    assert rows["other"][4, "first evaluator"] == rows["other"][4, "knows the first"]
    assert rows["other"][4, "oracle"]["estimate"] == pytest.approx(
        outcomes.second_correct_CSN["other"].any(axis=2).mean(), abs=1e-4
    )


def test_without_second_evaluators_the_section_is_empty() -> None:
    plain = Outcomes(["a"], ["counting"], np.ones((1, 1, 1), bool), {}, {})
    assert evaluation_metrics(plain, [1])["second_evaluators"] == {}


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


def test_one_that_judges_already_is_refused() -> None:
    benchmark = Benchmark("three prompts", LINES, ByPixel("first", 0))
    with pytest.raises(InvalidRequest, match="one evaluator is named twice among first, first"):
        second_evaluators_of(benchmark, [ByPixel("first", 3)])


def test_the_command_shows_and_writes_both_judges(
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

    monkeypatch.setattr(evaluate, "load_evaluator", load)
    evaluate.load_evaluators("geneval-miniature", (first, "eyes", None), [second], CPU)
    assert loaded == expected


def test_best_of_n_of_each_chooser_with_n_rising(contents: Contents):
    by_strategy = contents.metrics.by_strategy()
    assert list(by_strategy)[:2] == ["hidden", "clip"]
    assert list(by_strategy)[-2:] == ["random", "oracle"]
    assert all([row.n for row in rows] == [1, 2, 4] for rows in by_strategy.values())


def test_figures_of_other_settings_are_refused(evaluation: Path, tmp_path: Path):
    folder = copy_folder(evaluation, tmp_path / "copy")
    settings = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(json.dumps(settings | {"evaluator": "dice"}))
    with pytest.raises(CheckpointError, match="is of another evaluation"):
        Contents.read(folder)


def test_layers_come_with_cuts_rising(tmp_path: Path):
    path = tmp_path / "study.json"
    reached = {"estimate": 0.5, "low": 0.4, "high": 0.6}
    variants = {reads: {"reads": reads, "best_of_8": reached} for reads in ("hidden:12", "latent", "hidden:4")}
    path.write_text(json.dumps({"variants": variants, "steps": 5}))
    assert [layer.num_prefix_blocks for layer in read_layers(path)] == [4, 12]


@pytest.mark.parametrize(("text", "complaint"), [("{", "the file: "), ("{}", "variants: Field required")])
def test_a_study_that_is_none_is_refused(text: str, complaint: str, tmp_path: Path):
    path = tmp_path / "study.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=complaint):
        read_layers(path)


DRAWN = outcomes()


def test_the_table_has_a_row_for_each_n_and_chooser() -> None:
    found = json.loads(json.dumps(evaluation_metrics(DRAWN, [1, 4], [{"knows": 1, "contrary": 0.5}])))
    rows = {(row["n"], row["strategy"]): row for row in found["best_of_n"]}
    combined = ["mean rank of knows, contrary", "log-odds of knows, 0.5 contrary"]
    assert {name for _, name in rows} == {"knows", "contrary", "silent", "random", "oracle", *combined}
    assert rows[4, "knows"]["micro"] == rows[4, "oracle"]["micro"] == rows[4, combined[1]]["micro"]
    assert rows[1, "knows"] == {**rows[1, "random"], "strategy": "knows"}
    assert rows[4, "random"]["micro"]["estimate"] == pytest.approx(DRAWN.correct_CSN.mean(), abs=1e-4)
    assert rows[4, "knows"]["micro"]["low"] < rows[4, "knows"]["micro"]["estimate"]
    assert (found["test_cases"], found["distinct_prompts"], found["seeds"], found["candidates"]) == (60, 30, 2, 4)


def test_the_first_verifier_is_compared_with_every_other_chooser() -> None:
    differences = {(row["n"], row["other"]): row for row in evaluation_metrics(DRAWN, [1, 4])["differences"]}
    assert set(differences) == {(4, name) for name in ("contrary", "silent", "random", "oracle")}
    assert differences[4, "oracle"]["p"] == 1
    assert differences[4, "random"]["p"] < 0.01
    assert differences[4, "random"]["estimate"] > 0


def test_oracle_gap_closed_is_whole_for_a_verifier_that_knows() -> None:
    assert oracle_gap_closed_interval(DRAWN, ["knows"], 4)["estimate"] == 1
    assert oracle_gap_closed_interval(DRAWN, ["contrary"], 4)["estimate"] < 0
    both = oracle_gap_closed_interval(DRAWN, ["knows", "contrary"], 4)["estimate"]
    assert both == pytest.approx((1 + oracle_gap_closed_interval(DRAWN, ["contrary"], 4)["estimate"]) / 2, abs=1e-3)


def test_ranking_figures_of_knowing_of_the_contrary_and_of_silence() -> None:
    knows, contrary, silent = (ranking_metrics(DRAWN, name) for name in ("knows", "contrary", "silent"))
    assert (knows["auroc"], knows["pair_accuracy"]["estimate"], knows["expected_calibration_error"]) == (1, 1, 0)
    assert (contrary["auroc"], contrary["pair_accuracy"]["estimate"]) == (0, 0)
    assert contrary["expected_calibration_error"] == 1
    assert (silent["expected_calibration_error"], silent["tie_rate"]) == (None, 1)
    assert 0 < knows["tie_rate"] < 1
