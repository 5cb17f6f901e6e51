"""Second evaluators: figures from known outcomes, rows and settings of a small run, and the command as a whole."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL.Image import Image
from tests.cli.command import CommandLine, refusal

from forejudge.cli import evaluation_judges
from forejudge.errors import InvalidRequest
from forejudge.evaluation.benchmarks import Benchmark, second_evaluators_of
from forejudge.evaluation.evaluation_folder import EvaluationFolder
from forejudge.evaluation.evaluators import Evaluator, GenEvalModels, Judgement
from forejudge.evaluation.figures import evaluation_figures
from forejudge.evaluation.outcomes import Outcomes, outcomes_of
from forejudge.evaluation.prompts_file import PromptLine
from forejudge.evaluation.run import Evaluation
from forejudge.evaluation.second_evaluators import agreement
from forejudge.generators import load_generator
from forejudge.miniature.classifier import new_classifier
from forejudge.miniature.splits import sample_prompt_lines
from forejudge.progress import report_nothing
from forejudge.shard import Shard
from forejudge.verifiers import load_verifier

CPU = torch.device("cpu")
LINES = sample_prompt_lines(3, "validation", 0)


class ByPixel(Evaluator):
    """Right is a picture whose pixel at `place` is odd, or even."""

    def __init__(self, name: str, place: int, odd: bool = True) -> None:
        self.name, self._place, self._odd = name, place, odd

    def __call__(self, lines: Sequence[PromptLine], pictures: Sequence[Image]) -> list[Judgement]:
        return [Judgement(picture.tobytes()[self._place] % 2 == self._odd, "") for picture in pictures]


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
        also_correct_CSN={"same": first, "opposite": ~first, "other": other},
    )


def evaluation_of(
    generator: Path, verifier: Path, others: Sequence[Evaluator], evaluator: Evaluator | None = None
) -> Evaluation:
    benchmark = Benchmark("three prompts", LINES, evaluator or ByPixel("first", 0))
    return Evaluation(
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
    figures = agreement([str(n) for n in range(50)], one, other)
    assert figures["agreement"]["estimate"] == 0.7
    assert figures["cohens_kappa"]["estimate"] == 0.4
    assert figures["cohens_kappa"]["low"] < 0.4 < figures["cohens_kappa"]["high"]


def test_kappa_is_no_number_where_nothing_is_told_apart() -> None:
    figures = agreement(["a", "b"], np.ones((2, 1, 3), bool), np.ones((2, 1, 3), bool))
    assert figures["agreement"]["estimate"] == 1
    assert np.isnan(figures["cohens_kappa"]["estimate"])


def test_a_gain_by_the_first_evaluator_is_none_by_another() -> None:
    outcomes = known_outcomes()
    found = evaluation_figures(outcomes, [1, 4])
    section = found["second_evaluators"]
    assert section["same"]["cohens_kappa"]["estimate"] == 1
    assert section["opposite"]["cohens_kappa"]["estimate"] < -0.8
    rows = {
        name: {(row["n"], row["chosen_by"]): row["micro"] for row in section[name]["best_of_n"]} for name in section
    }
    first = {(row["n"], row["chosen_by"]): row["micro"] for row in found["best_of_n"]}
    assert all(rows["same"][key] == micro for key, micro in first.items())
    assert rows["same"][4, "knows the first"]["estimate"] > 0.8
    assert rows["other"][4, "knows the first"]["estimate"] == pytest.approx(
        rows["other"][4, "random"]["estimate"], abs=0.1
    )
    assert rows["other"][4, "first evaluator"] == rows["other"][4, "knows the first"]
    assert rows["other"][4, "perfect judge"]["estimate"] == pytest.approx(
        outcomes.also_correct_CSN["other"].any(axis=2).mean(), abs=1e-4
    )


def test_without_second_evaluators_the_section_is_empty() -> None:
    plain = Outcomes(["a"], ["counting"], np.ones((1, 1, 1), bool), {}, {})
    assert evaluation_figures(plain, [1])["second_evaluators"] == {}


def test_every_row_says_what_each_evaluator_says(tiny_generator: Path, tiny_verifier: Path, tmp_path: Path) -> None:
    same, opposite, other = ByPixel("same", 0), ByPixel("opposite", 0, odd=False), ByPixel("other", 3000)
    folder = EvaluationFolder(tmp_path)
    evaluation_of(tiny_generator, tiny_verifier, [same, opposite, other]).run(folder, Shard(1, 1), report_nothing)
    assert folder.settings.second_evaluators == ("same", "opposite", "other")
    for row in folder.rows(0):
        assert row["also_correct"].keys() == {"same", "opposite", "other"}
        assert row["also_correct"]["same"] == row["correct"] != row["also_correct"]["opposite"]
    outcomes = outcomes_of(folder)
    assert (outcomes.also_correct_CSN["same"] == outcomes.correct_CSN).all()
    alone = EvaluationFolder(tmp_path / "alone")
    evaluation_of(tiny_generator, tiny_verifier, [], evaluator=other).run(alone, Shard(1, 1), report_nothing)
    assert (outcomes.also_correct_CSN["other"] == outcomes_of(alone).correct_CSN).all()


def test_a_folder_goes_on_with_the_same_evaluators_only(
    tiny_generator: Path, tiny_verifier: Path, tmp_path: Path
) -> None:
    folder, part = EvaluationFolder(tmp_path), Shard(1, 3)
    evaluation_of(tiny_generator, tiny_verifier, [ByPixel("other", 9)]).run(folder, part, report_nothing)
    before = folder.settings
    evaluation_of(tiny_generator, tiny_verifier, [ByPixel("other", 9)]).run(folder, Shard(1, 1), report_nothing)
    assert folder.settings == before
    assert folder.missing == []
    with pytest.raises(InvalidRequest, match=r"second_evaluators = \('other',\), now it is \(\)"):
        evaluation_of(tiny_generator, tiny_verifier, []).run(folder, Shard(1, 1), report_nothing)


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

    monkeypatch.setattr(evaluation_judges, "load_evaluator", load)
    evaluation_judges.load_judges("geneval-miniature", (first, "eyes", None), [second], CPU)
    assert loaded == expected
