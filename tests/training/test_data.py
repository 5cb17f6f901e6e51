"""What is trained on: rows of this generator, judged by others than the training ones."""

import json
from pathlib import Path

import pytest
import torch
from tests.training.tiny_run import CPU, TinyRun

from forejudge.errors import InvalidRequest, MismatchError
from forejudge.generators import load_generator
from forejudge.training.align import align
from forejudge.training.checkpoints import newest_checkpoint
from forejudge.training.data import DrawnRows, share_of_training_prompts
from forejudge.training.verify import verify


def test_training_candidates_do_not_judge_their_own_training(tiny_run: TinyRun, tmp_path: Path) -> None:
    run, data = tiny_run.generator, tiny_run.training
    with pytest.raises(InvalidRequest, match="holds the training candidates"):
        verify(tiny_run.verify_recipe(), run, data, data, tmp_path, lambda _: None)
    with pytest.raises(InvalidRequest, match="holds the training candidates"):
        align(tiny_run.align_recipe(), run, data, data, tmp_path, lambda _: None)


def test_rows_of_another_precision_are_other_pictures(tiny_run: TinyRun) -> None:
    generator = load_generator(str(tiny_run.folder / "generator"), CPU, torch.bfloat16)
    with pytest.raises(MismatchError, match="drawn in float32, the generator runs in bfloat16"):
        DrawnRows.of(tiny_run.training, generator)


def test_a_card_says_how_many_validation_candidates_have_a_training_prompt(tiny_run: TinyRun, verified: Path) -> None:
    rows = [DrawnRows.of(folder, tiny_run.generator) for folder in (tiny_run.training, tiny_run.validation)]
    training, validation = (set(each.prompts) for each in rows)
    expected = sum(prompt in training for prompt in rows[1].prompts) / len(rows[1])
    assert share_of_training_prompts(*rows) == expected
    assert 0 < expected < len(training & validation)
    figures = json.loads((verified / "metrics.json").read_text())
    assert figures["share of these with a training prompt"] == expected
    assert f"| share of these with a training prompt | {expected:.4f} |" in (verified / "README.md").read_text()


def test_an_alignment_with_another_language_model_is_refused(tiny_run: TinyRun, aligned: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="made with language_model = language_model, the recipe has owner/other"):
        tiny_run.verify(tmp_path, aligned=aligned, language_model="owner/other")


def test_weights_that_are_no_numbers_are_not_left_as_a_result(tiny_run: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="training diverged"):
        tiny_run.align(tmp_path, learning_rate=1e38, steps=3, evaluate_every=3, warmup_steps=0)
    assert not (tmp_path / "README.md").exists()
    assert newest_checkpoint(tmp_path / "checkpoints") is not None
