"""The miniature's generator: a SANA-Sprint of the library's own classes, trained to draw in one step.

At the last time (pure noise) the scene is coupled with the noise, and regression learns that function. At earlier
times the picture is mixed with independent noise, because SCMScheduler re-noises every further step afresh. A shallow
transformer is trained first and then made twice as deep: the new blocks start as no change. From then on the output
layer is read after the first half too and has to say the same, so that the first half decides what will be drawn.
"""

import math
from dataclasses import dataclass
from itertools import product

import torch
from diffusers import AutoencoderDC, SanaSprintPipeline, SanaTransformer2DModel, SCMScheduler
from torch import Tensor, nn
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

from forejudge.generators.sana_split import SanaInput, prefix, suffix
from forejudge.miniature.autoencoder import to_model_range
from forejudge.miniature.coupling import NOISE_SHAPE, Asked, couple
from forejudge.miniature.scene import render
from forejudge.miniature.splits import sample_descriptions
from forejudge.miniature.tokenizers import gemma_tokenizer
from forejudge.miniature.training_loop import LossAtStep, generator_at

GUIDANCE_SCALE = 4.5  # the pipeline's default
_TEXT_LENGTH = 16  # the longest prompt of the world has 13 tokens; masked ones change nothing
_COUPLED_SHARE = 0.75
_EARLIEST_TIME = 0.1  # of SCMScheduler's angle, whose last is pi / 2
_AGREEMENT = 0.25  # weight of the distance between what the first blocks and all of them predict
_SOFTNESS = 0.3  # below this error per token the loss is a square, above it a distance


class GeneratorParts(nn.Module):
    """What is trained together: text encoder and transformer, whose output is read after `decided_after` blocks too."""

    def __init__(self, blocks: int, width: int, decided_after: int) -> None:
        super().__init__()
        self.text_encoder = Gemma2Model(_text_encoder_config(len(gemma_tokenizer())))
        self.transformer = new_transformer(blocks, width, self.text_encoder.config.hidden_size)
        self.decided_after = decided_after

    def forward(self, ids_NL: Tensor, mask_NL: Tensor, latents_NCHW: Tensor, time_N: Tensor) -> tuple[Tensor, Tensor]:
        """The velocity (N, C, H, W) after all blocks, and the one that the first `decided_after` alone predict."""
        text_NLD = self.text_encoder(ids_NL, attention_mask=mask_NL)[0]
        guidance_N = torch.full_like(time_N, GUIDANCE_SCALE * self.transformer.config.guidance_embeds_scale)
        inputs = SanaInput(latents_NCHW, text_NLD, mask_NL, time_N, guidance_N)
        middle = prefix(self.transformer, inputs, self.decided_after)
        decided_NCHW = suffix(self.transformer, middle, len(self.transformer.transformer_blocks))
        if self.decided_after == len(self.transformer.transformer_blocks):
            return decided_NCHW, decided_NCHW
        return suffix(self.transformer, middle, self.decided_after), decided_NCHW

    def deepened(self, blocks: int) -> "GeneratorParts":
        """A copy of so many blocks, the new ones last: they begin as the last one without its outputs, no change."""
        deeper = GeneratorParts(blocks, self.transformer.config.num_attention_heads * 32, self.decided_after)
        deeper.text_encoder.load_state_dict(self.text_encoder.state_dict())
        first = len(self.transformer.transformer_blocks)
        weights = self.transformer.state_dict()
        last = {name: value for name, value in weights.items() if name.startswith(f"transformer_blocks.{first - 1}.")}
        for number, (name, value) in product(range(first, blocks), last.items()):
            is_output = "to_out" in name or "conv_point" in name
            renamed = name.replace(f".{first - 1}.", f".{number}.", 1)
            weights[renamed] = torch.zeros_like(value) if is_output else value.clone()
        deeper.transformer.load_state_dict(weights)
        return deeper


def new_transformer(blocks: int, width: int, text_width: int) -> SanaTransformer2DModel:
    """An untrained transformer with SANA-Sprint's options, only smaller, and with position embeddings."""
    heads = width // 32
    return SanaTransformer2DModel(
        in_channels=NOISE_SHAPE[0],
        out_channels=NOISE_SHAPE[0],
        num_attention_heads=heads,
        attention_head_dim=32,
        num_layers=blocks,
        num_cross_attention_heads=heads,
        cross_attention_head_dim=32,
        cross_attention_dim=width,
        caption_channels=text_width,
        sample_size=NOISE_SHAPE[1],
        interpolation_scale=1,
        guidance_embeds=True,
        guidance_embeds_scale=0.1,
        qk_norm="rms_norm_across_heads",
        timestep_scale=1000.0,
    )


def _text_encoder_config(vocabulary_size: int) -> Gemma2Config:
    return Gemma2Config(
        vocab_size=vocabulary_size,
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        head_dim=32,
        query_pre_attn_scalar=32,
        max_position_embeddings=512,
        initializer_range=0.1,
    )


@dataclass(frozen=True)
class _Batch:
    ids_NL: Tensor
    mask_NL: Tensor
    noisy_NCHW: Tensor
    time_N: Tensor
    clean_NCHW: Tensor
    noise_NCHW: Tensor


class GeneratorLoss:
    """Regression of the velocity, as all blocks and as the first ones predict it, on freshly rendered scenes."""

    def __init__(self, parts: GeneratorParts, autoencoder: AutoencoderDC, compiled: bool) -> None:
        self.forward = parts
        if compiled:
            for block in parts.transformer.transformer_blocks:
                block.compile()  # alike, so that one compilation serves all
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.tokenizer = gemma_tokenizer()

    def at(self, batch_size: int, seed: int) -> LossAtStep:
        """The loss as a function of the training step."""
        return lambda step: self._loss(self._batch(batch_size, generator_at(seed, step)))

    def _loss(self, batch: _Batch) -> Tensor:
        velocity, decided = self.forward(batch.ids_NL, batch.mask_NL, batch.noisy_NCHW, batch.time_N)
        wanted = batch.noise_NCHW - batch.clean_NCHW
        if decided is velocity:
            return _error(velocity - wanted)
        return _error(velocity - wanted) + _error(decided - wanted) + _AGREEMENT * _error(velocity - decided)

    def _batch(self, size: int, generator: torch.Generator) -> _Batch:
        described = sample_descriptions(size, generator)
        noise = torch.randn(size, *NOISE_SHAPE, generator=generator)
        clean = self._encode(render(couple(Asked.of(described), noise)))
        coupled = torch.rand(size, generator=generator) < _COUPLED_SHARE
        other = torch.randn(noise.shape, generator=generator)
        noise = torch.where(coupled.view(-1, 1, 1, 1), noise, other)
        time = torch.where(coupled, 1.0, _random_times(size, generator))
        share = time.view(-1, 1, 1, 1)
        text = self.tokenizer(
            [item.prompt for item in described],
            padding="max_length",
            padding_side="right",
            max_length=_TEXT_LENGTH,
            return_tensors="pt",
        )
        mixed = (1 - share) * clean + share * noise
        parts = (text.input_ids, text.attention_mask, mixed, time, clean, noise)
        return _Batch(*(part.to(self.autoencoder.device) for part in parts))

    @torch.no_grad()
    def _encode(self, picture: Tensor) -> Tensor:
        picture = to_model_range(picture).to(self.autoencoder.device)
        latents = self.autoencoder.encode(picture).latent.cpu()
        return latents * self.autoencoder.config.scaling_factor


def _random_times(size: int, generator: torch.Generator) -> Tensor:
    """Times as the transformer is told them: sin / (sin + cos) of a uniform angle."""
    angle = torch.rand(size, generator=generator) * (math.pi / 2 - _EARLIEST_TIME) + _EARLIEST_TIME
    return angle.sin() / (angle.sin() + angle.cos())


def _error(difference_NCHW: Tensor) -> Tensor:
    """Pseudo-Huber distance per token: undecided tokens settle for one picture rather than a blend of two."""
    squared_NHW = difference_NCHW.square().mean(1)
    return ((squared_NHW + _SOFTNESS**2).sqrt() - _SOFTNESS).mean()


def assemble(parts: GeneratorParts, autoencoder: AutoencoderDC) -> SanaSprintPipeline:
    """The pipeline that plain diffusers loads and runs."""
    return SanaSprintPipeline(
        tokenizer=_padded(gemma_tokenizer()),
        text_encoder=parts.text_encoder,
        vae=autoencoder,
        transformer=parts.transformer,
        scheduler=SCMScheduler(),
    )


def _padded(tokenizer: GemmaTokenizer) -> GemmaTokenizer:
    tokenizer.padding_side = "right"
    return tokenizer
