"""A tiny untrained Gemma 3 that is shown images with a text."""

from pathlib import Path

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    GemmaTokenizer,
)

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<boi>", "<eoi>", "<img>")
# Wide images are shown in crops as well, so that prompts differ in length.
CROPS = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 8,
    "pan_and_scan_max_num_crops": 3,
    "pan_and_scan_min_ratio_to_activate": 1.5,
}
_WORDS = ("red", "blue", "dog", "bench", "two", "left", "above", "bright")
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% for part in message.content %}"
    "{{ '<boi>' if part.type == 'image' else part.text }}{% endfor %}{% endfor %}"
)


def save_image_text_model(folder: Path, text: str, merges: tuple[tuple[str, str], ...] = ()) -> Path:
    """Write a model's folder and return it; its tokens are the letters of `text` and what `merges` make of them."""
    processor = new_processor(text, merges)
    processor.save_pretrained(folder)
    _new_model(len(processor.tokenizer)).save_pretrained(folder)
    return folder


def new_processor(text: str, merges: tuple[tuple[str, str], ...] = ()) -> Gemma3Processor:
    letters = sorted({*text.replace(" ", "▁")})
    tokens = [*SPECIAL_TOKENS, *letters, *map("".join, merges), *(f"▁{word}" for word in _WORDS)]
    tokenizer = GemmaTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=list(merges),
        extra_special_tokens={"image_token": "<img>", "boi_token": "<boi>", "eoi_token": "<eoi>"},
    )
    images = Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    return Gemma3Processor(images, tokenizer, chat_template=_TEMPLATE, image_seq_length=4)


def _new_model(vocabulary: int) -> Gemma3ForConditionalGeneration:
    """It samples unless told otherwise, as the real one does, and ends with a mark."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.05,
    }
    config = Gemma3Config(
        text_config={**sizes, "vocab_size": vocabulary, "num_key_value_heads": 1, "head_dim": 16},
        vision_config={**sizes, "image_size": 28, "patch_size": 7, "model_type": "siglip_vision_model"},
        mm_tokens_per_image=4,
        boi_token_index=SPECIAL_TOKENS.index("<boi>"),
        eoi_token_index=SPECIAL_TOKENS.index("<eoi>"),
        image_token_index=SPECIAL_TOKENS.index("<img>"),
        tie_word_embeddings=False,
    )
    model = Gemma3ForConditionalGeneration(config)
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)  # zeros at first
    model.generation_config.update(do_sample=True, top_k=64, top_p=0.95, forced_eos_token_id=1)
    return model
