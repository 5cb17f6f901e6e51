"""The small language model: what it is pre-trained on, and that it learns it."""

import re

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from forejudge.miniature.plugin import QUESTION as MINIATURE_QUESTION
from forejudge.miniature.prompts import TASKS_SHARING_PROMPTS, cases, descriptions
from research.miniature.language_model import (
    held_out_perplexity,
    language_model_loss,
    language_model_tokenizer,
    new_language_model,
    world_texts,
)
from research.miniature.train import generator_for_step
from research.tests.few_steps import losses_of


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return language_model_tokenizer()


@pytest.fixture(scope="module")
def texts(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    ids = world_texts(300, generator_for_step(0, 0), "training", tokenizer)
    return [tokenizer.decode(text) for text in ids]


def test_texts_never_answer_a_question(texts: list[str]) -> None:
    asked = [text for text in texts if "answer yes or no" in text]
    assert len(asked) > 30
    assert not [text for text in asked if "assistant" in text]
    assert not [text for text in texts if re.search(r"assistant\n(yes|no)\b", text)]


def test_texts_say_scenes_in_two_ways_and_ask_what_is_shown(texts: list[str]) -> None:
    told = [text for text in texts if "what does this show?" in text]
    assert len(told) > 150
    assert all(re.search(r"assistant\n.+\.<\|im_end\|>", text) for text in told)


def test_texts_ask_for_no_prompt_that_is_held_out(texts: list[str]) -> None:
    before, after = MINIATURE_QUESTION.removeprefix("<image>").split("{prompt}")
    asked = {match[1] for text in texts if (match := re.search(f"{re.escape(before)}(.*?){re.escape(after)}", text))}
    held_out = {case.description.prompt for case in cases("test")}
    shared = {item.prompt for task in TASKS_SHARING_PROMPTS for item in descriptions(task, "test")}
    assert asked
    assert not asked & (held_out - shared)


def test_every_word_is_one_token(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> None:
    words = {
        word for text in texts for word in re.findall(r"[a-z]+", re.sub(r"<\|im_start\|>\w+|<\|im_end\|>", "", text))
    }
    assert [word for word in words if len(tokenizer(f" {word}").input_ids) != 1] == []


def test_a_few_steps_lower_held_out_perplexity(tokenizer: PreTrainedTokenizerBase) -> None:
    torch.manual_seed(0)
    model = new_language_model(tokenizer, 32, 1)
    before = held_out_perplexity(model, tokenizer, seed=1)
    assert before == pytest.approx(len(tokenizer), rel=0.2)
    loss_at_step = language_model_loss(model, tokenizer, batch_size=16, seed=0)
    losses_of(model, loss_at_step, 20, 5e-3)
    assert held_out_perplexity(model, tokenizer, seed=1) < before / 3
