"""Language model of the miniature's verifier, a small Qwen2, and the tokenizers of all of the miniature's models.

It is pre-trained on texts of the world, so that alignment starts, as with Qwen2.5-0.5B, from a model that can speak.
The texts are chats without labels and images: a third describe one scene twice in different words, as an image and its
caption will; the rest are captions and questions alone.

Tokenizers are the library's own Gemma, T5, Qwen2 and CLIP classes over the world's few words, each of which is one
token. Any other text falls back to bytes, so every prompt can be encoded; T5's, which knows no bytes, to letters.
"""

import json
import math
import random
import string
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor
from transformers import (
    CLIPTokenizer,
    GemmaTokenizer,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    T5Tokenizer,
)

from forejudge.checkpoint import quiet_libraries
from forejudge.digests import write_checksums
from forejudge.evaluators.geneval_rules import Detection
from forejudge.files import write_text
from forejudge.miniature.captioner import CAPTION_WORDS, caption_from_detections
from forejudge.miniature.plugin import INSTRUCTION as MINIATURE_INSTRUCTION
from forejudge.miniature.plugin import QUESTION as MINIATURE_QUESTION
from forejudge.miniature.prompts import sample_descriptions
from forejudge.miniature.scenes import COLOR_NAMES, KINDS, NOISE_SHAPE, SceneBatch, SceneConstraints, couple
from forejudge.noise import Split
from forejudge.progress import ProgressCallback
from forejudge.prompts.geneval import NUMBER_WORDS, plural
from forejudge.training.dataset import IGNORE_INDEX, pad_right
from forejudge.verifiers.question import IMAGE_PLACEHOLDER, PROMPT_PLACEHOLDER
from research.miniature.cards import language_model_card, training_provenance
from research.miniature.recipe import LanguageModelRecipe
from research.miniature.train import LossAtStep, generator_for_step, train

WORDS: tuple[str, ...] = (
    *KINDS, *map(plural, KINDS), *COLOR_NAMES, *NUMBER_WORDS.values(),
    "a", "an", "and", "above", "below", "left", "of", "photo", "right",
)  # fmt: skip
_UNCLEAR_SHARE = 0.2  # of the objects in captions
_HELD_OUT_TEXTS = 2000
_PRIVATE_USE = 0xE000  # first code point of Unicode's private use area
_CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def gemma_tokenizer() -> GemmaTokenizer:
    """Return the generator's tokenizer. Words carry a leading "▁", as Gemma's do."""
    pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never")
    texts = [f"{word} {word}" for word in WORDS]
    pieces, merges = _train_bpe(pre_tokenizer, texts, alphabet=[])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens = special + [f"<0x{byte:02X}>" for byte in range(256)] + pieces
    return GemmaTokenizer(vocab=_to_vocab(tokens), merges=merges)


def t5_tokenizer() -> T5Tokenizer:
    """Return the tokenizer of PixArt's text encoder: a unigram model that prefers a word to its letters."""
    special = [(mark, 0.0) for mark in ("<pad>", "</s>", "<unk>")]
    letters = [(letter, -4.0) for letter in ("▁", *string.ascii_lowercase, *string.digits, *string.punctuation)]
    words = [(f"▁{word}", -1.0) for word in dict.fromkeys(WORDS)]
    return T5Tokenizer(vocab=[*special, *words, *letters], extra_ids=0)


def qwen2_tokenizer(texts: Iterable[str]) -> Qwen2Tokenizer:
    """Return the tokenizer of the verifier's language model; `texts` holds the wording of its questions."""
    pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    words = [f"{word} {word}" for word in (*WORDS, "yes", "no")]
    pieces, merges = _train_bpe(pre_tokenizer, [*words, *texts], pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(vocab=_to_vocab(["<|endoftext|>", *pieces]), merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": list(_CHAT_TOKENS)})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def clip_tokenizer(texts: Iterable[str]) -> CLIPTokenizer:
    """Return CLIP's tokenizer; `texts` holds the words of captions. A word's last piece ends with "</w>".

    The trainer numbers pieces with an end-of-word suffix in an order that changes from process to process, and with it
    the merges. So a private character stands for each last letter while it trains.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    last = {letter: chr(_PRIVATE_USE + number) for number, letter in enumerate(letters)}
    pre_tokenizer = CLIPTokenizer().backend_tokenizer.pre_tokenizer
    words = [word for word, _ in pre_tokenizer.pre_tokenize_str(" ".join((*WORDS, *texts)))]
    marked = [f"{word[:-1]}{last[word[-1]]}" for word in words]
    pieces, merges = _train_bpe(pre_tokenizers.WhitespaceSplit(), marked, [*letters, *last.values()])
    unmark = str.maketrans({mark: f"{letter}</w>" for letter, mark in last.items()})
    vocabulary = _to_vocab([*(piece.translate(unmark) for piece in pieces), "<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(
        vocab=vocabulary, merges=[(left.translate(unmark), right.translate(unmark)) for left, right in merges]
    )


def _train_bpe(
    pre_tokenizer: pre_tokenizers.PreTokenizer, texts: list[str], alphabet: list[str]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Return byte-pair pieces in the order of their ids, and merges, until every word of `texts` is one piece."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=100_000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return pieces, [(left, right) for left, right in model["merges"]]


def _to_vocab(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def world_texts(
    count: int, generator: torch.Generator, split: Split, tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """Return token ids of `count` chats about scenes of a split's prompts."""
    rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
    sampled = sample_descriptions(count, generator, split)
    scenes = couple(SceneConstraints.from_descriptions(sampled), torch.randn(count, *NOISE_SHAPE, generator=generator))
    texts = []
    for row, description in enumerate(sampled):
        detections = scene_detections(scenes, row, rng)
        caption, paraphrase = (caption_from_detections(detections, rng) for _ in range(2))
        question = MINIATURE_QUESTION.replace(PROMPT_PLACEHOLDER, description.prompt).replace(
            IMAGE_PLACEHOLDER, caption
        )
        instruction = MINIATURE_INSTRUCTION.replace(IMAGE_PLACEHOLDER, rng.choice([caption, caption, ""])).strip()
        texts.append(_chat(question) if rng.random() < 0.25 else _chat(instruction, paraphrase))
    ids: list[list[int]] = [
        tokenizer(tokenizer.apply_chat_template(chat, tokenize=False), add_special_tokens=False).input_ids
        for chat in texts
    ]
    return ids


def _chat(question: str, answer: str | None = None) -> list[dict[str, str]]:
    turns = [{"role": "user", "content": question}]
    return turns if answer is None else [*turns, {"role": "assistant", "content": answer}]


def scene_detections(
    scenes: SceneBatch, row: int, rng: random.Random, unclear_share: float = _UNCLEAR_SHARE
) -> Sequence[Detection]:
    """Return the objects of a scene as a detector would report them, some of them unclear."""
    detections = []
    for slot in torch.nonzero(scenes.present_NK[row]).flatten().tolist():
        x, y = scenes.center_NK2[row, slot].tolist()
        radius = float(scenes.radius_NK[row, slot])
        confidence = 0.6 if rng.random() < unclear_share else 1.0
        kind, color = KINDS[scenes.kind_NK[row, slot]], COLOR_NAMES[scenes.color_NK[row, slot]]
        detections.append(Detection(kind, (x - radius, y - radius, x + radius, y + radius), confidence, color))
    return detections


def language_model_tokenizer() -> Qwen2Tokenizer:
    """Return the tokenizer, in which every word of captions, questions and prompts is one token."""
    words = [f"{word} {word}" for word in CAPTION_WORDS]
    return qwen2_tokenizer([*words, MINIATURE_QUESTION, MINIATURE_INSTRUCTION])


def new_language_model(tokenizer: PreTrainedTokenizerBase, width: int, layers: int) -> Qwen2ForCausalLM:
    """Return an untrained model over the tokenizer's vocabulary; `width` is a multiple of 32."""
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
    """Return the next-token cross-entropy on fresh texts of training prompts, as a function of the training step."""

    def loss_at_step(step: int) -> Tensor:
        total, tokens = _next_token_loss(model, tokenizer, batch_size, generator_for_step(seed, step), "training")
        return total / tokens

    return loss_at_step


@torch.no_grad()
def held_out_perplexity(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, seed: int) -> float:
    """Compute the perplexity per token on texts about scenes of validation prompts."""
    total, tokens = _next_token_loss(model, tokenizer, _HELD_OUT_TEXTS, generator_for_step(seed, 0), "validation")
    return math.exp(float(total) / tokens)


def _next_token_loss(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerBase, count: int, generator: torch.Generator, split: Split
) -> tuple[Tensor, int]:
    """Return the loss summed over tokens, and the number of tokens."""
    ids_NL, mask_NL = pad_right(world_texts(count, generator, split, tokenizer))
    labels_NL = ids_NL.masked_fill(~mask_NL.bool(), IGNORE_INDEX)[:, 1:]
    logits_NLV = model(ids_NL.to(model.device)).logits[:, :-1]
    loss = F.cross_entropy(logits_NLV.flatten(0, 1), labels_NL.to(model.device).flatten(), reduction="sum")
    return loss, int(labels_NL.ne(IGNORE_INDEX).sum())


def build_language_model(
    folder: Path,
    checkpoint: Path,
    recipe: LanguageModelRecipe,
    seed: int,
    device: torch.device,
    report: ProgressCallback,
) -> None:
    """Train a language model, resuming from `checkpoint`, and save it to `folder` with its tokenizer and card."""
    tokenizer = language_model_tokenizer()
    torch.manual_seed(seed)
    model = new_language_model(tokenizer, recipe.width, recipe.layers).to(device)
    loss = language_model_loss(model, tokenizer, recipe.settings.batch_size, seed + 4)
    trained, seconds = train("language model", model, loss, recipe.settings, checkpoint, report)
    # of the weights as they are stored
    perplexity = held_out_perplexity(trained.half().float().eval(), tokenizer, seed + 5)
    with quiet_libraries():
        trained.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    write_checksums(folder)
    card_facts = training_provenance(seed, seconds, device) | {"held-out perplexity per token": round(perplexity, 3)}
    write_text(folder / "README.md", language_model_card(recipe, card_facts))
