"""An instruction that is read once: the same states as one reading of instruction and prompt together."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Gemma2Config, Gemma2Model

from forejudge.generators.text_encoding import CachedInstructionEncoder
from research.miniature.language_model import gemma_tokenizer
from tests.support.doubles import CPU

INSTRUCTION = "a photo of a red circle and a "  # its last space becomes one token with the prompt's first word
PROMPTS = ("blue square", "green triangle left of a blue square", "?!")
TOKENIZER = gemma_tokenizer()


@pytest.fixture(scope="module")
def text_encoder() -> Any:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(TOKENIZER), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, sliding_window=64, initializer_range=0.3,
    )  # fmt: skip
    return Gemma2Model(config).eval()


@pytest.fixture
def read(text_encoder: Any) -> Iterator[list[int]]:
    """How many tokens each call of the text encoder has to read."""
    seen: list[int] = []
    hook = text_encoder.layers[0].register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    yield seen
    hook.remove()


def tokens(text: str) -> list[int]:
    return list(TOKENIZER(text).input_ids)


class RenamedArgument(torch.nn.Module):
    """A model as transformers 5.24 has them, whose argument for the cache has another name."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, input_ids: Tensor, cache: Any = None, use_cache: bool = False) -> Any:
        return self.model(input_ids=input_ids, past_key_values=cache, use_cache=use_cache)


def test_the_cache_goes_by_either_name(text_encoder: Any) -> None:
    models = (text_encoder, RenamedArgument(text_encoder))
    encoders = [CachedInstructionEncoder(model, TOKENIZER, INSTRUCTION, CPU) for model in models]
    states, renamed = (encoder.hidden_states(PROMPTS[0]) for encoder in encoders)
    assert torch.equal(states, renamed)


def whole(text_encoder: Any, text: str) -> Tensor:
    with torch.no_grad():
        return text_encoder(input_ids=torch.tensor([tokens(text)]))[0]


@pytest.mark.parametrize("instruction", [INSTRUCTION, INSTRUCTION.strip(), ""])
def test_the_states_are_those_of_one_reading(text_encoder: Any, instruction: str) -> None:
    encoder = CachedInstructionEncoder(text_encoder, TOKENIZER, instruction, CPU)
    for prompt in (*PROMPTS, PROMPTS[0]):
        torch.testing.assert_close(encoder.hidden_states(prompt), whole(text_encoder, instruction + prompt))


def test_only_what_differs_from_the_instruction_is_read(text_encoder: Any, read: list[int]) -> None:
    encoder = CachedInstructionEncoder(text_encoder, TOKENIZER, INSTRUCTION, CPU)
    for prompt in PROMPTS[:2]:
        encoder.hidden_states(prompt)
    instruction = tokens(INSTRUCTION)
    same = len(instruction) - 1
    assert tokens(INSTRUCTION + PROMPTS[0])[:same] == instruction[:same]
    assert tokens(INSTRUCTION + PROMPTS[0])[same] != instruction[same], "the texts meet within a token"
    assert read == [len(instruction), *(len(tokens(INSTRUCTION + prompt)) - same for prompt in PROMPTS[:2])]


def test_a_prompt_that_adds_no_token_is_read_all_the_same(text_encoder: Any) -> None:
    encoder = CachedInstructionEncoder(text_encoder, TOKENIZER, INSTRUCTION.strip(), CPU)
    expected = whole(text_encoder, INSTRUCTION.strip())
    torch.testing.assert_close(encoder.hidden_states(""), expected)
