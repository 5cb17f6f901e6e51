"""SANA-Sprint with the paper's verifiers: at the published sizes, and scaled down for a CPU."""

from typing import Any

from transformers import CLIPVisionConfig, Gemma2Config, Qwen2Config

from forejudge.profiling.stages import GeneratorSizes, ModelSizes, VerifierSizes

_TEXT_TOKENS = 520  # SANA's instruction is 222 of Gemma's tokens, of which two go to the 300 of a prompt
_QUESTION_TOKENS = 95  # the published question in Qwen2.5's chat template, about a prompt of GenEval's
_TRANSFORMER = {"guidance_embeds": True, "guidance_embeds_scale": 0.1, "qk_norm": "rms_norm_across_heads"}


def _autoencoder(*channels: int) -> dict[str, Any]:
    """DC-AE f32, with so many channels from the pixels' side to the latents'."""
    blocks = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    scales = ((), (), (), (5,), (5,), (5,))
    return {
        "encoder_block_types": blocks,
        "decoder_block_types": blocks,
        "encoder_block_out_channels": channels,
        "decoder_block_out_channels": channels,
        "encoder_qkv_multiscales": scales,
        "decoder_qkv_multiscales": scales,
        "encoder_layers_per_block": (2, 2, 2, 3, 3, 3),
        "decoder_layers_per_block": (3, 3, 3, 3, 3, 3),
        "upsample_block_type": "interpolate",
        "downsample_block_type": "Conv",
        "scaling_factor": 0.41407,
    }


PUBLISHED = ModelSizes(
    GeneratorSizes(
        transformer=_TRANSFORMER,  # the class's defaults are the other sizes
        text_encoder=Gemma2Config(
            vocab_size=256000,
            hidden_size=2304,
            intermediate_size=9216,
            num_hidden_layers=26,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
        ),
        autoencoder=_autoencoder(128, 256, 512, 512, 1024, 1024),
        text_tokens=_TEXT_TOKENS,
    ),
    VerifierSizes(
        language_model=Qwen2Config(
            vocab_size=151936,
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        ),
        question_tokens=_QUESTION_TOKENS,
        vision_tower=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=24,
            num_attention_heads=16,
            image_size=336,
            patch_size=14,
        ),
    ),
    num_prefix_blocks=8,
)
"""SANA-Sprint 1.6B at 1024 px with Gemma-2-2b and DC-AE f32c32; Qwen2.5-0.5B, and CLIP ViT-L/14 at 336 px."""

SMALL = ModelSizes(
    GeneratorSizes(
        transformer={
            **_TRANSFORMER,
            "num_layers": 10,
            "num_attention_heads": 10,
            "num_cross_attention_heads": 5,
            "cross_attention_head_dim": 64,
            "cross_attention_dim": 320,
            "caption_channels": 192,
            "sample_size": 8,
        },
        text_encoder=Gemma2Config(
            vocab_size=512,
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=3,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=64,
        ),
        autoencoder=_autoencoder(16, 32, 64, 64, 128, 128),
        text_tokens=_TEXT_TOKENS,
    ),
    VerifierSizes(
        language_model=Qwen2Config(
            vocab_size=512,
            hidden_size=160,
            intermediate_size=864,
            num_hidden_layers=6,
            num_attention_heads=5,
            num_key_value_heads=1,
            tie_word_embeddings=True,
        ),
        question_tokens=_QUESTION_TOKENS,
        vision_tower=CLIPVisionConfig(
            hidden_size=192,
            intermediate_size=768,
            num_hidden_layers=12,
            num_attention_heads=6,
            image_size=84,
            patch_size=14,
        ),
    ),
    num_prefix_blocks=4,
)
"""About a thousandth of the published work at 256 px, in much the same shares: a Best-of-8 takes seconds on a CPU."""
