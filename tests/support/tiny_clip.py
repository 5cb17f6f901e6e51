"""An untrained CLIP, small enough to be made in a second, with a tokenizer of whole words."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from forejudge.prompts.geneval import COLORS

WORDS = ["a", "photo", "of", "-", "colored", "object", "bench", "cow", *COLORS]


def save_tiny_clip(folder: Path, activation: str = "quick_gelu") -> Path:
    """Write a folder and return it."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", *WORDS, "<start>", "<end>"])}
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    end = vocabulary["<end>"]
    text = {**sizes, "vocab_size": len(vocabulary), "max_position_embeddings": 16, "eos_token_id": end}
    vision = {**sizes, "image_size": 28, "patch_size": 14}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**text, "hidden_act": activation, "bos_token_id": end - 1, "pad_token_id": 0},
        vision_config={**vision, "hidden_act": activation},
        projection_dim=16,
        initializer_factor=10.0,  # so that colors differ
    )
    CLIPModel(config).save_pretrained(folder)
    _tokenizer(vocabulary).save_pretrained(folder)
    return folder


def _tokenizer(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(name, vocabulary[name]) for name in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<start>", eos_token="<end>", pad_token="<pad>", unk_token="<pad>"
    )
