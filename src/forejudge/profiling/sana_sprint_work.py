"""The work of SANA-Sprint 1.6B at 1024 px and of verifiers around Qwen2.5-0.5B, counted without any weights.

The architectures are the published ones; on the meta device the library's own classes count what they would do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from diffusers import AutoencoderDC, SanaTransformer2DModel
from transformers import CLIPVisionConfig, CLIPVisionModel, Gemma2Config, Gemma2Model, Qwen2Config, Qwen2Model

from forejudge.generators import sana_split
from forejudge.generators.sana_split import SanaInput
from forejudge.profiling.flops import count_flops
from forejudge.profiling.meta_work import TransformerWork, text_flops, transformer_work

BLOCKS = 20
_TEXT_TOKENS = 520  # of the text encoder: SANA's instruction and a prompt
_PROMPT_TOKENS = 300  # of which the transformer reads so many
_QUESTION_TOKENS = 95  # around the picture
_LATENT_SIDE, _PATCHES = 32, 576


@dataclass(frozen=True)
class StageWork:
    """Floating-point operations: `encode` and `decode` once, the others for one candidate.

    The language model reads a token for each place of the hidden state, or for each patch of CLIP.
    """

    encode: int
    block: int
    decode: int
    clip: int
    language_model_on_hidden: int
    language_model_on_patches: int

    def of_stages(self, reads: Mapping[str, "Read"]) -> dict[str, int]:
        """As `search_costs.stage_flops` names them; the first verifier says where the verdict is given."""
        first = next(iter(reads.values()))
        return {
            "encode": self.encode,
            "to the verdict": first.blocks * self.block,
            "to the latent": (BLOCKS - first.blocks) * self.block,
            "decode": self.decode,
            **{name: self._judging(read) for name, read in reads.items()},
        }

    def of_search(self, read: "Read") -> tuple[int, int]:
        """(fixed, for each candidate) of a search; nothing is drawn twice."""
        rest = (BLOCKS - read.blocks) * self.block
        each = read.blocks * self.block + self._judging(read)
        if read.kind == "clip":
            return self.encode, each + self.decode
        return self.encode + rest + self.decode, each

    def _judging(self, read: "Read") -> int:
        if read.kind == "clip":
            return self.clip + self.language_model_on_patches
        return self.language_model_on_hidden


@dataclass(frozen=True)
class Read:
    """What a verifier reads, and after how many of the blocks it stands there."""

    kind: Literal["hidden", "latent", "clip"]
    blocks: int


def sana_sprint_work() -> StageWork:
    """Count it; takes seconds and no memory to speak of."""
    with torch.device("meta"):
        language_model = Qwen2Model(_qwen())
        return StageWork(
            encode=text_flops(Gemma2Model(_gemma()), _TEXT_TOKENS),
            block=_transformer_work().whole // BLOCKS,
            decode=_decoder_flops(),
            clip=_clip_flops(),
            language_model_on_hidden=text_flops(language_model, _LATENT_SIDE**2 + _QUESTION_TOKENS),
            language_model_on_patches=text_flops(language_model, _PATCHES + _QUESTION_TOKENS),
        )


def _transformer_work() -> TransformerWork:
    transformer = SanaTransformer2DModel(guidance_embeds=True, qk_norm="rms_norm_across_heads")  # defaults: 1.6B
    inputs = SanaInput(
        torch.zeros(1, transformer.config.in_channels, _LATENT_SIDE, _LATENT_SIDE),
        torch.zeros(1, _PROMPT_TOKENS, transformer.config.caption_channels),
        torch.zeros(1, _PROMPT_TOKENS),
        torch.zeros(1),
        torch.zeros(1),
    )
    return transformer_work(sana_split, transformer, inputs, BLOCKS)


def _decoder_flops() -> int:
    blocks = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    scales = ((), (), (), (5,), (5,), (5,))
    autoencoder = AutoencoderDC(
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        encoder_layers_per_block=(2, 2, 2, 3, 3, 3),
        decoder_layers_per_block=(3, 3, 3, 3, 3, 3),
        upsample_block_type="interpolate",
        downsample_block_type="Conv",
    )
    latents_NCHW = torch.zeros(1, autoencoder.config.latent_channels, _LATENT_SIDE, _LATENT_SIDE)
    return count_flops(lambda: autoencoder.decode(latents_NCHW))


def _clip_flops() -> int:
    config = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )
    tower = CLIPVisionModel(config)
    return count_flops(lambda: tower(pixel_values=torch.zeros(1, 3, 336, 336)))


def _gemma() -> Gemma2Config:
    return Gemma2Config(
        vocab_size=256000,
        hidden_size=2304,
        intermediate_size=9216,
        num_hidden_layers=26,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        attn_implementation="eager",
    )


def _qwen() -> Qwen2Config:
    return Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        attn_implementation="eager",
    )
