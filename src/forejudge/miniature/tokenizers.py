"""The miniature's tokenizers: the library's own Gemma, T5, Qwen2 and CLIP classes over the world's few words.

Every word of the world is one token. Any other text falls back to bytes, so no prompt is unreadable; T5's, which knows
no bytes, falls back to letters.
"""

import json
import string
from collections.abc import Iterable

from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import CLIPTokenizer, GemmaTokenizer, Qwen2Tokenizer, T5Tokenizer

from forejudge.evaluation.description import NUMBER_WORDS, plural
from forejudge.miniature.scene import COLOUR_NAMES
from forejudge.miniature.shapes import KINDS

WORDS: tuple[str, ...] = (
    *KINDS, *map(plural, KINDS), *COLOUR_NAMES, *NUMBER_WORDS.values(),
    "a", "an", "and", "above", "below", "left", "of", "photo", "right",
)  # fmt: skip
_CHAT_MARKS = ("<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def gemma_tokenizer() -> GemmaTokenizer:
    """For the text encoder. Words carry a leading "▁", as Gemma's do."""
    splitter = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never")
    texts = [f"{word} {word}" for word in WORDS]
    pieces, merges = _train(splitter, texts, alphabet=[])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens = special + [f"<0x{byte:02X}>" for byte in range(256)] + pieces
    return GemmaTokenizer(vocab=_numbered(tokens), merges=merges)


def t5_tokenizer() -> T5Tokenizer:
    """For PixArt's text encoder: a unigram model, in which a word is likelier than its letters."""
    special = [(mark, 0.0) for mark in ("<pad>", "</s>", "<unk>")]
    letters = [(letter, -4.0) for letter in ("▁", *string.ascii_lowercase, *string.digits, *string.punctuation)]
    words = [(f"▁{word}", -1.0) for word in dict.fromkeys(WORDS)]
    return T5Tokenizer(vocab=[*special, *words, *letters], extra_ids=0)


def qwen2_tokenizer(texts: Iterable[str]) -> Qwen2Tokenizer:
    """For the verifier's language model; `texts` holds the wording of its questions."""
    splitter = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    words = [f"{word} {word}" for word in (*WORDS, "yes", "no")]
    pieces, merges = _train(splitter, [*words, *texts], pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(vocab=_numbered(["<|endoftext|>", *pieces]), merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": list(_CHAT_MARKS)})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def clip_tokenizer(texts: Iterable[str]) -> CLIPTokenizer:
    """For the CLIP tower's text side; `texts` holds the words of captions. A word's last piece ends with "</w>"."""
    splitter = CLIPTokenizer().backend_tokenizer.pre_tokenizer
    words = [f"{word} {word}" for word in (*WORDS, *texts)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pieces, merges = _train(splitter, words, alphabet, end_of_word_suffix="</w>")
    ends = [f"{letter}</w>" for letter in sorted(alphabet)]
    vocabulary = _numbered([*sorted(alphabet), *ends, *pieces, "<|startoftext|>", "<|endoftext|>"])
    return CLIPTokenizer(vocab=vocabulary, merges=merges)


def _train(
    splitter: pre_tokenizers.PreTokenizer, texts: list[str], alphabet: list[str], end_of_word_suffix: str = ""
) -> tuple[list[str], list[tuple[str, str]]]:
    """Byte-pair pieces in order of their number, and merges, until every word of `texts` is whole."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = splitter
    trainer = trainers.BpeTrainer(
        vocab_size=100_000, initial_alphabet=alphabet, show_progress=False, end_of_word_suffix=end_of_word_suffix
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return pieces, [(left, right) for left, right in model["merges"]]


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}
