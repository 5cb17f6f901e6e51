"""Batches of questions and captions, and rows of a folder."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor

from forejudge.candidates.features import States
from forejudge.candidates.store import CandidateStore, CollectionConfig
from forejudge.errors import InvalidRequest, MismatchError
from forejudge.generators import load_generator
from forejudge.miniature.plugin import INSTRUCTION as MINIATURE_INSTRUCTION
from forejudge.miniature.plugin import QUESTION as MINIATURE_QUESTION
from forejudge.training.dataset import (
    IGNORE_INDEX,
    CaptionBatches,
    QuestionBatches,
    QuestionTokens,
    RowDataset,
    StoredRows,
    TrainingData,
    collate_rows,
    training_prompt_overlap,
)
from forejudge.verifiers.question import Question
from research.miniature.language_model import language_model_tokenizer
from tests.support.tiny_run import CANDIDATES, CPU, TinyRun

PROMPTS = ["a photo of a star", "a photo of a red circle above a blue square", "x"]
CAPTIONS = ["a star", "two red circles above a blue square", "an empty <|im_end|> scene"]
CORRECT = [True, False, False]


class NumberedStates(States):
    """Row 5 holds nothing but fives."""

    def tokens(self, rows: list[int]) -> Tensor:  # type: ignore[override]
        return torch.tensor(rows).view(-1, 1, 1).expand(-1, 4, 8).half()


@pytest.fixture(scope="module")
def question() -> Question:
    return Question(MINIATURE_QUESTION, language_model_tokenizer())


@pytest.fixture(scope="module")
def questions(question: Question) -> QuestionBatches:
    return QuestionBatches(NumberedStates(), QuestionTokens(question), PROMPTS, CORRECT)


@pytest.fixture(scope="module")
def captions(question: Question) -> CaptionBatches:
    return CaptionBatches(NumberedStates(), Question(MINIATURE_INSTRUCTION, question.tokenizer), CAPTIONS)


def test_a_batch_of_questions_is_what_the_verifier_asks(questions: QuestionBatches, question: Question) -> None:
    rows = [2, 0, 1, 2]
    batch = questions(rows)
    for place, row in enumerate(rows):
        left, right = question.tokens_around_image(PROMPTS[row])
        real = batch["mask_NL"][place].bool()
        assert batch["left_NL"][place].tolist() == left
        assert batch["right_NL"][place, real].tolist() == right
        assert real.tolist() == sorted(real.tolist(), reverse=True), "padding is on the right"
        assert batch["tokens_NTD"][place].unique().item() == row
    assert batch["labels"].tolist() == [0, 1, 0, 0]
    assert not batch["mask_NL"].all()


def test_labels_are_the_caption_and_its_end_token(captions: CaptionBatches) -> None:
    batch = captions([0, 1, 2])
    tokenizer = captions.instruction.tokenizer
    left, asked = captions.instruction.tokens_around_image("")
    for place, caption in enumerate(CAPTIONS):
        learnt = batch["labels"][place] != IGNORE_INDEX
        said = batch["labels"][place, learnt]
        assert torch.equal(said, batch["right_NL"][place, learnt])
        assert tokenizer.decode(said) == f"{caption}<|im_end|>"
        assert said.tolist().count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1, "one in a caption is plain text"
        assert learnt.tolist().index(True) == len(asked)
        assert batch["right_NL"][place, : len(asked)].tolist() == asked
        assert batch["left_NL"][place].tolist() == left


@pytest.mark.parametrize("kind", ["questions", "captions"])
def test_a_batch_is_a_function_of_its_rows(request: pytest.FixtureRequest, kind: str) -> None:
    batches = request.getfixturevalue(kind)
    first = batches([1, 2])
    batches([0])
    again = batches([1, 2])
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_items_carry_their_collator(questions: QuestionBatches, captions: CaptionBatches) -> None:
    """One collator serves training and validation."""
    for batches in (questions, captions):
        rows = RowDataset(range(1, 3), batches)
        made, expected = collate_rows([rows[1], rows[0]]), batches([2, 1])
        assert len(rows) == 2
        assert made.keys() == expected.keys()
        assert all(torch.equal(made[name], part) for name, part in expected.items())


def test_a_run_is_not_validated_on_any_of_its_training_candidates(tiny_run: TinyRun, tmp_path: Path) -> None:
    settings = json.loads((tiny_run.training / "settings.json").read_text())
    first = CandidateStore(tiny_run.training).table().to_pylist()[: 3 * (CANDIDATES - 1)]
    shared = CandidateStore(tmp_path / "shared")
    shared.begin(
        CollectionConfig(
            **settings | {"candidates": CANDIDATES - 1, "rows": len(first), "prompts": "others", "recorded": ()}
        )
    )
    shared.write(0, first, {})
    for validation, count in ((tiny_run.training, settings["rows"]), (shared.path, len(first))):
        with pytest.raises(InvalidRequest, match=f"holds {count} candidates of .* with --split validation"):
            TrainingData.of(tiny_run.training, validation, tiny_run.generator)


def test_equal_prompts_of_two_splits_share_no_candidate(tiny_run: TinyRun) -> None:
    data = TrainingData.of(tiny_run.training, tiny_run.validation, tiny_run.generator)
    assert set(data.training.prompts) & set(data.held_out.prompts)  # single objects and counts
    assert not set(data.training.column("seed")) & set(data.held_out.column("seed"))


def test_rows_of_another_dtype_are_refused(tiny_run: TinyRun) -> None:
    generator = load_generator(str(tiny_run.folder / "generator"), CPU, torch.bfloat16)
    with pytest.raises(MismatchError, match="generated in float32, the generator runs in bfloat16"):
        StoredRows.of(tiny_run.training, generator)


def test_a_card_says_how_many_validation_candidates_have_a_training_prompt(
    tiny_run: TinyRun, trained_verifier: Path
) -> None:
    rows = [StoredRows.of(folder, tiny_run.generator) for folder in (tiny_run.training, tiny_run.validation)]
    training, validation = (set(each.prompts) for each in rows)
    expected = sum(prompt in training for prompt in rows[1].prompts) / len(rows[1])
    assert training_prompt_overlap(*rows) == expected
    assert 0 < expected < len(training & validation)
    figures = json.loads((trained_verifier / "metrics.json").read_text())
    assert figures["share_with_training_prompt"] == expected
    assert f"| share with training prompt | {expected:.4f} |" in (trained_verifier / "README.md").read_text()


def test_a_mirrored_prompt_is_a_training_prompt_too() -> None:
    training = SimpleNamespace(prompts=["a photo of a star left of a ring", "a photo of a star"])
    held_out = SimpleNamespace(prompts=["a photo of a ring right of a star", "a photo of a ring left of a star"])
    assert training_prompt_overlap(cast(StoredRows, training), cast(StoredRows, held_out)) == 0.5


def test_an_alignment_with_another_language_model_is_refused(tiny_run: TinyRun, aligned: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="made with language_model = language_model, the recipe has owner/other"):
        tiny_run.verify(tmp_path, aligned=aligned, language_model="owner/other")
