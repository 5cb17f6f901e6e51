"""Texts of the world, as chats, on which the small language model is pre-trained: it reads no label and no picture.

A third says one scene twice in different words, as a picture and its caption will; the rest are captions and
questions alone.
"""

import random
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

from forejudge.evaluation.detection import Detection
from forejudge.miniature.captioner import caption_of
from forejudge.miniature.coupling import NOISE_SHAPE, Asked, couple
from forejudge.miniature.scene import COLOUR_NAMES, SceneBatch
from forejudge.miniature.shapes import KINDS
from forejudge.miniature.splits import Split, sample_descriptions
from forejudge.training.recipe import MINIATURE_INSTRUCTION, MINIATURE_QUESTION
from forejudge.verifiers.question import PICTURE, PROMPT

_UNCLEAR_SHARE = 0.2


def world_texts(
    count: int, generator: torch.Generator, split: Split, tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Token numbers of `count` chats about scenes that prompts of a split ask for."""
    source = random.Random(int(torch.randint(2**62, (), generator=generator)))
    described = sample_descriptions(count, generator, split)
    scenes = couple(Asked.of(described), torch.randn(count, *NOISE_SHAPE, generator=generator))
    texts = []
    for row, description in enumerate(described):
        seen = seen_in(scenes, row, source)
        before, after = (caption_of(seen, source) for _ in range(2))
        asked = MINIATURE_QUESTION.replace(PROMPT, description.prompt).replace(PICTURE, before)
        told = MINIATURE_INSTRUCTION.replace(PICTURE, source.choice([before, before, ""])).strip()
        texts.append(_chat(asked) if source.random() < 0.25 else _chat(told, after))
    ids: list[list[int]] = [
        tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False).input_ids
        for chat in texts
    ]
    return ids


def _chat(asked: str, answer: str | None = None) -> list[dict[str, str]]:
    turns = [{"role": "user", "content": asked}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": answer}]


def seen_in(
    scenes: SceneBatch, row: int, source: random.Random, unclear_share: float = _UNCLEAR_SHARE
) -> Sequence[Detection]:
    """The objects of a scene as a detector would report them, some of them unclear."""
    found = []
    for slot in torch.nonzero(scenes.present_NK[row]).flatten().tolist():
        x, y = scenes.centre_NK2[row, slot].tolist()
        radius = float(scenes.radius_NK[row, slot])
        confidence = 0.6 if source.random() < unclear_share else 1.0
        kind, colour = KINDS[scenes.kind_NK[row, slot]], COLOUR_NAMES[scenes.colour_NK[row, slot]]
        found.append(Detection(kind, (x - radius, y - radius, x + radius, y + radius), confidence, colour))
    return found
