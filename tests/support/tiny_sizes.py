"""The paper's models at tiny sizes, made and run in a moment."""

import pytest
import torch
from transformers import CLIPVisionConfig, Gemma2Config, Qwen2Config

from forejudge.profiling.models import ProfiledModels
from forejudge.profiling.sizes import (
    KINDS,
    RANDOM_MODELS,
    GeneratorSizes,
    ModelSizes,
    VerifierSizes,
    random_models,
)
from tests.support.doubles import CPU

TINY = ModelSizes(
    GeneratorSizes(
        transformer={
            "in_channels": 4,
            "out_channels": 4,
            "num_layers": 3,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "num_cross_attention_heads": 2,
            "cross_attention_head_dim": 16,
            "cross_attention_dim": 32,
            "caption_channels": 32,
            "sample_size": 2,
            "guidance_embeds": True,
            "qk_norm": "rms_norm_across_heads",
        },
        text_encoder=Gemma2Config(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
        ),
        autoencoder={
            "latent_channels": 4,
            "attention_head_dim": 4,
            "encoder_block_types": "ResBlock",
            "decoder_block_types": ("ResBlock",) * 5 + ("EfficientViTBlock",),
            "encoder_block_out_channels": (4, 8, 8, 8, 8, 8),
            "decoder_block_out_channels": (4, 8, 8, 8, 8, 8),
            "encoder_layers_per_block": (1,) * 6,
            "decoder_layers_per_block": (1,) * 6,
        },
        text_tokens=310,
    ),
    VerifierSizes(
        language_model=Qwen2Config(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        ),
        question_tokens=60,
        vision_tower=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        ),
        tiny_decoder={
            "latent_channels": 4,
            "decoder_block_out_channels": (4, 4, 4),
            "num_decoder_blocks": (1, 1, 0),
            "encoder_block_out_channels": (4,),
            "num_encoder_blocks": (0,),
        },
    ),
    num_prefix_blocks=1,
)


def tiny_models(monkeypatch: pytest.MonkeyPatch, *kinds: str, dtype: torch.dtype = torch.float32) -> ProfiledModels:
    """Make tiny models of random weights with verifiers of these kinds (default: all)."""
    monkeypatch.setitem(RANDOM_MODELS, "tiny", TINY)
    return random_models("tiny", kinds or KINDS, None, CPU, dtype)
