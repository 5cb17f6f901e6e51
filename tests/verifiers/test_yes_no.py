"""One forward pass over text, picture and text."""

import pytest
import torch
from torch import Tensor

from forejudge.miniature.language_model import new_language_model
from forejudge.miniature.tokenizers import qwen2_tokenizer
from forejudge.training.recipe import MINIATURE_QUESTION as QUESTION
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.question import Question
from forejudge.verifiers.yes_no import YesNoModel

PROMPTS = ["a photo of a red circle", "a photo of three blue squares above a star, all of them small", "x"]
HIDDEN_NTD = torch.randn(3, 16, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def question() -> Question:
    return Question(QUESTION, qwen2_tokenizer([QUESTION]))


@pytest.fixture(scope="module")
def model(question: Question) -> YesNoModel:
    torch.manual_seed(0)
    return YesNoModel(Connector(8, 64), new_language_model(question.tokenizer, 64, 2)).eval()


def sides(question: Question, prompt: str) -> tuple[Tensor, Tensor]:
    left, right = question.tokens_around_picture(prompt)
    return torch.tensor([left]), torch.tensor([right])


def singly(model: YesNoModel, question: Question) -> Tensor:
    return torch.cat([model(HIDDEN_NTD[[row]], *sides(question, prompt)) for row, prompt in enumerate(PROMPTS)])


@torch.no_grad()
def test_a_padded_batch_gives_what_single_calls_give(model: YesNoModel, question: Question) -> None:
    """Whatever stands in the padding."""
    rights = [sides(question, prompt)[1][0] for prompt in PROMPTS]
    longest = max(map(len, rights))
    assert len({len(right) for right in rights}) == 3
    mask_NL = torch.stack([(torch.arange(longest) < len(right)).long() for right in rights])
    left_NL = sides(question, PROMPTS[0])[0].expand(3, -1)
    for padding in (0, 5):
        padded = [torch.nn.functional.pad(right, (0, longest - len(right)), value=padding) for right in rights]
        together = model(HIDDEN_NTD, left_NL, torch.stack(padded), mask_NL)
        torch.testing.assert_close(together, singly(model, question), rtol=0, atol=1e-5)


@torch.no_grad()
def test_without_padding_the_mask_changes_nothing(model: YesNoModel, question: Question) -> None:
    left_NL, right_NL = (side.expand(3, -1) for side in sides(question, PROMPTS[0]))
    masked = model(HIDDEN_NTD, left_NL, right_NL, torch.ones_like(right_NL))
    torch.testing.assert_close(model(HIDDEN_NTD, left_NL, right_NL), masked, rtol=0, atol=1e-5)


@torch.no_grad()
def test_it_is_the_language_model_s_own_answer(model: YesNoModel, question: Question) -> None:
    """Over the sequence left, picture, right, at the first new token, over the whole vocabulary."""
    left_NL, right_NL = sides(question, PROMPTS[1])
    embed = model.language_model.get_input_embeddings()
    embeddings = torch.cat([embed(left_NL), model.connector(HIDDEN_NTD[:1]), embed(right_NL)], dim=1)
    expected = model.language_model(inputs_embeds=embeddings).logits[:, -1].log_softmax(-1)
    found = model(HIDDEN_NTD[:1], left_NL, right_NL)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert found.shape == (1, len(question.tokenizer))
    assert found.exp().sum().item() == pytest.approx(1)


@torch.no_grad()
def test_prompt_and_picture_both_matter(model: YesNoModel, question: Question) -> None:
    answers = singly(model, question)
    other_prompt = model(HIDDEN_NTD[:1], *sides(question, PROMPTS[1]))
    other_picture = model(HIDDEN_NTD[1:2], *sides(question, PROMPTS[0]))
    assert not torch.allclose(other_prompt, answers[:1], atol=1e-4)
    assert not torch.allclose(other_picture, answers[:1], atol=1e-4)


def test_answers_are_float32_whatever_the_model_is(question: Question) -> None:
    half = YesNoModel(Connector(8, 64), new_language_model(question.tokenizer, 64, 1)).to(torch.bfloat16)
    assert half(HIDDEN_NTD[:1].to(torch.bfloat16), *sides(question, PROMPTS[0])).dtype == torch.float32


def test_a_shorter_dtype_rounds_weights_but_neither_positions_nor_statistics(question: Question) -> None:
    """Rotary frequencies rounded to bfloat16 are off by radians after 1000 tokens."""
    model = YesNoModel(Connector(8, 64), new_language_model(question.tokenizer, 64, 1))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    assert any("inv_freq" in name for name in before)
    model.to(torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
