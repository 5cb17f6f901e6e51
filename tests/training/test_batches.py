"""What a model is trained on, batch by batch."""

import pytest
import torch
from torch import Tensor

from forejudge.miniature.language_model import language_model_tokenizer
from forejudge.training.batches import IGNORED, CaptionBatches, QuestionBatches, Rows, collated
from forejudge.training.recipe import MINIATURE_INSTRUCTION, MINIATURE_QUESTION
from forejudge.training.states import States
from forejudge.verifiers.question import Question

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
    return QuestionBatches(NumberedStates(), question, PROMPTS, CORRECT)


@pytest.fixture(scope="module")
def captions(question: Question) -> CaptionBatches:
    return CaptionBatches(NumberedStates(), Question(MINIATURE_INSTRUCTION, question.tokenizer), CAPTIONS)


def test_a_batch_of_questions_is_what_the_verifier_asks(questions: QuestionBatches, question: Question) -> None:
    rows = [2, 0, 1, 2]
    batch = questions(rows)
    for place, row in enumerate(rows):
        left, right = question.tokens_around_picture(PROMPTS[row])
        real = batch["mask_NL"][place].bool()
        assert batch["left_NL"][place].tolist() == left
        assert batch["right_NL"][place, real].tolist() == right
        assert real.tolist() == sorted(real.tolist(), reverse=True), "padding is on the right"
        assert batch["tokens_NTD"][place].unique().item() == row
    assert batch["labels"].tolist() == [0, 1, 0, 0]
    assert not batch["mask_NL"].all()


def test_only_a_caption_and_its_end_are_to_be_learnt(captions: CaptionBatches) -> None:
    batch = captions([0, 1, 2])
    tokenizer = captions.instruction.tokenizer
    left, asked = captions.instruction.tokens_around_picture("")
    for place, caption in enumerate(CAPTIONS):
        learnt = batch["labels"][place] != IGNORED
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


def test_rows_carry_what_makes_a_batch_of_them(questions: QuestionBatches, captions: CaptionBatches) -> None:
    """One collator serves training and validation."""
    for batches in (questions, captions):
        rows = Rows(range(1, 3), batches)
        made, expected = collated([rows[1], rows[0]]), batches([2, 1])
        assert len(rows) == 2
        assert made.keys() == expected.keys()
        assert all(torch.equal(made[name], part) for name, part in expected.items())
