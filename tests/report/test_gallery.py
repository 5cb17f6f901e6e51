import shutil
from pathlib import Path

import pytest

from forejudge.candidates.evaluation_store import EvaluationRow, EvaluationStore
from forejudge.errors import CheckpointError
from forejudge.report.gallery import gallery
from tests.support.folders import copy_folder


def rows_of_first_seed(folder: EvaluationStore, prompt: int) -> list[EvaluationRow]:
    return [row for row in folder.rows(prompt) if row["seed_index"] == 0]


def number_of(folder: EvaluationStore, prompt: str) -> int:
    return next(n for n in range(folder.settings.prompts) if folder.metadata(n).prompt == prompt)


def test_two_prompts_of_each_task_in_the_order_of_the_paper(evaluation: Path):
    shown = gallery(EvaluationStore(evaluation))
    assert [each.task for each in shown] == ["Single object"] * 2 + ["Colors"] * 2
    assert shown == gallery(EvaluationStore(evaluation))


def test_candidates_say_what_their_rows_say(evaluation: Path):
    folder = EvaluationStore(evaluation)
    for shown in gallery(folder):
        rows = rows_of_first_seed(folder, number_of(folder, shown.prompt))
        said = [row["verdicts"]["hidden"]["probability"] or 0 for row in rows]
        assert [each.winner for each in shown.thumbnails] == [value == max(said) for value in said]
        assert [each.verdict for each in shown.thumbnails] == [f"{100 * value:.0f} %" for value in said]
        assert [each.correct for each in shown.thumbnails] == [row["correct"] for row in rows]
        disagreeing = [(value >= 0.5) != row["correct"] for value, row in zip(said, rows, strict=True)]
        assert [each.disagrees for each in shown.thumbnails] == disagreeing


def test_prompts_on_which_a_right_candidate_was_missed_come_first(evaluation: Path):
    folder = EvaluationStore(evaluation)

    def missed(prompt: int) -> bool:
        rows = rows_of_first_seed(folder, prompt)
        chosen = max(rows, key=lambda row: row["verdicts"]["hidden"]["score"])
        return not chosen["correct"] and any(row["correct"] for row in rows)

    shown = {number_of(folder, each.prompt) for each in gallery(folder)}
    all_missed = {prompt for prompt in range(6) if missed(prompt)}
    assert all_missed, "the evaluation has no such prompt: give it another seed"
    for task in (range(3), range(3, 6)):
        of_task = all_missed & set(task)
        assert len(of_task & shown) == min(len(of_task), 2)


def test_scores_are_shown_where_there_are_no_probabilities(evaluation: Path, tmp_path: Path):
    folder = EvaluationStore(copy_folder(evaluation, tmp_path / "copy"))
    settings = folder.settings.model_copy(update={"verifiers": {"clip": "0"}})
    (folder.path / "settings.json").write_text(settings.model_dump_json())
    thumbnails = [each for shown in gallery(EvaluationStore(folder.path)) for each in shown.thumbnails]
    assert all(each.verdict.startswith("score 0.") and not each.disagrees for each in thumbnails)


def test_an_image_that_does_not_open_is_named(evaluation: Path, tmp_path: Path):
    folder = EvaluationStore(copy_folder(evaluation, tmp_path / "copy"))
    for prompt in range(6):
        folder.sample(prompt, folder.rows(prompt)[1]).write_bytes(b"no image")
    with pytest.raises(CheckpointError, match=r"0001\.png is damaged"):
        gallery(folder)


def test_a_prompt_that_came_before_shows_its_own_first_image(evaluation: Path, tmp_path: Path):
    folder = EvaluationStore(copy_folder(evaluation, tmp_path / "copy"))
    for prompt in range(folder.settings.prompts):
        folder.write(prompt, [row | {"image_index": prompt} for row in folder.rows(prompt)], {})
    assert gallery(folder) == gallery(EvaluationStore(evaluation))


@pytest.mark.parametrize("sample", ["../../../secret.png", "{tmp_path}/secret.png", "link.png"])
def test_an_image_outside_of_the_folder_is_refused(evaluation: Path, tmp_path: Path, sample: str) -> None:
    folder = EvaluationStore(shutil.copytree(evaluation, tmp_path / "copy"))
    (tmp_path / "secret.png").touch()
    (folder.images(0).path / "samples" / "link.png").symlink_to(tmp_path / "secret.png")
    row = folder.rows(0)[0] | {"sample": sample.format(tmp_path=tmp_path)}
    with pytest.raises(CheckpointError, match=r"secret\.png is outside|link\.png is outside"):
        folder.sample(0, row)
