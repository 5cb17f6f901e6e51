"""Untrained parts of the library's own classes that several tiny pipelines have in common, and how those are saved."""

from pathlib import Path
from typing import Any, TypeVar

from diffusers import FlowMatchEulerDiscreteScheduler
from transformers import CLIPTextConfig, CLIPTokenizer, PreTrainedModel, T5Config, T5EncoderModel

from forejudge.generators.base import OPTIONS_FILE, GeneratorOptions
from research.miniature.language_model import clip_tokenizer

TextModelT = TypeVar("TextModelT", bound=PreTrainedModel)

TEXT_TOKENS = 30
TEXT_WIDTH = 32
DEV = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)  # by the size of the image
AUTOENCODER: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "block_out_channels": (8, 8),
    "latent_channels": 4,
    "norm_num_groups": 2,
}


def short_clip_tokenizer() -> CLIPTokenizer:
    """Make a CLIP tokenizer of few tokens."""
    tokenizer = clip_tokenizer([])
    tokenizer.model_max_length = 20  # 77 in the published ones
    return tokenizer


def new_clip(kind: type[TextModelT], tokenizer: CLIPTokenizer, width: int = TEXT_WIDTH) -> TextModelT:
    """Make a text model of CLIP."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=64,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return kind(config).eval()


def new_t5(vocabulary: int) -> T5EncoderModel:
    """Make a T5 encoder of TEXT_WIDTH."""
    config = T5Config(vocab_size=vocabulary, d_model=TEXT_WIDTH, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    return T5EncoderModel(config).eval()


def save_with_options(folder: Path, pipeline: Any, options: GeneratorOptions) -> Path:
    """Write its folder and return it."""
    pipeline.save_pretrained(folder)
    (folder / OPTIONS_FILE).write_text(options.model_dump_json())
    return folder
