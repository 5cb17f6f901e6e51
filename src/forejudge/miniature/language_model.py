"""The language model of the miniature's verifier: a small Qwen2 with its own tokenizer and chat template.

It is pre-trained on texts of the world, so that it stands in for Qwen2.5-0.5B: alignment finds a model that can speak.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerBase, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from forejudge.miniature.captioner import CAPTION_WORDS
from forejudge.miniature.splits import Split
from forejudge.miniature.tokenizers import qwen2_tokenizer
from forejudge.miniature.training_loop import LossAtStep, generator_at
from forejudge.miniature.world_texts import world_texts
from forejudge.training.batches import IGNORED, padded
from forejudge.training.recipe import MINIATURE_INSTRUCTION, MINIATURE_QUESTION

_HELD_OUT_TEXTS = 2000


def language_model_tokenizer() -> Qwen2Tokenizer:
    """Every word of captions, questions and prompts is one token."""
    words = [f"{word} {word}" for word in CAPTION_WORDS]
    return qwen2_tokenizer([*words, MINIATURE_QUESTION, MINIATURE_INSTRUCTION])


def new_language_model(tokenizer: PreTrainedTokenizerBase, width: int, layers: int) -> Qwen2ForCausalLM:
    """An untrained model over the tokenizer's vocabulary; `width` is a multiple of 32."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            num_key_value_heads=width // 32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        )
    )


def language_model_loss(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, batch_size: int, seed: int
) -> LossAtStep:
    """Next-token cross-entropy on fresh texts of training prompts, as a function of the training step."""

    def loss_at_step(step: int) -> Tensor:
        total, tokens = _next_token_loss(model, tokenizer, batch_size, generator_at(seed, step), "training")
        return total / tokens

    return loss_at_step


@torch.no_grad()
def held_out_perplexity(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, seed: int) -> float:
    """Per token, on texts about scenes of validation prompts."""
    total, tokens = _next_token_loss(model, tokenizer, _HELD_OUT_TEXTS, generator_at(seed, 0), "validation")
    return math.exp(float(total) / tokens)


def _next_token_loss(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, count: int, source: torch.Generator, split: Split
) -> tuple[Tensor, int]:
    """Summed over tokens, and how many they are."""
    ids_NL, mask_NL = padded(world_texts(count, source, split, tokenizer))
    wanted_NL = ids_NL.masked_fill(~mask_NL.bool(), IGNORED)[:, 1:]
    logits_NLV = model(ids_NL.to(model.device)).logits[:, :-1]
    loss = F.cross_entropy(logits_NLV.flatten(0, 1), wanted_NL.to(model.device).flatten(), reduction="sum")
    return loss, int(wanted_NL.ne(IGNORED).sum())
