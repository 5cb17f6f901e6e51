"""Tiny decoder of the miniature: an AutoencoderTiny that learned to decode as the generator's autoencoder does.

It stands in for TAESD and its kin in the baseline that reads previews. It learns from recorded latents of training
candidates and the full decoder's images of them, and from nothing else. Its encoder is there because the class has one;
it is not trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderDC, AutoencoderTiny
from PIL import Image
from torch import Tensor

from forejudge.evaluators.base import Evaluator
from forejudge.generators.base import Generator
from forejudge.miniature.scenes import NOISE_SHAPE
from forejudge.profiling.measure import count_flops
from forejudge.prompts.prompt_file import PromptLine
from forejudge.training.dataset import StoredRows
from forejudge.verifiers.inputs import LatentInput
from forejudge.verifiers.tiny_decoder import decode_previews
from research.miniature.autoencoder import reconstruction_loss
from research.miniature.train import LossAtStep, generator_for_step

_DECODED_AT_ONCE = 64


def new_tiny_decoder(width: int, blocks: Sequence[int]) -> AutoencoderTiny:
    """Return an untrained tiny decoder with as many residual blocks at each size, from the latents' to the images'."""
    return AutoencoderTiny(
        latent_channels=NOISE_SHAPE[0],
        decoder_block_out_channels=(width,) * len(blocks),
        num_decoder_blocks=tuple(blocks),
        encoder_block_out_channels=(1,),
        num_encoder_blocks=(0,),
    )


@dataclass(frozen=True)
class DecodedLatents:
    """Latents (N, C, H, W) of candidates and the images (N, 3, H, W) in [-1, 1] that the full decoder makes of them."""

    latents_NCHW: Tensor
    images_N3HW: Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls, rows: StoredRows, numbers: Sequence[int], generator: Generator[Any], autoencoder: AutoencoderDC
    ) -> "DecodedLatents":
        """Decode the latents of some rows once: that costs more than a step of training on them."""
        verifier_input = LatentInput()
        states = rows.states(generator, verifier_input)
        latents_NCHW = torch.cat(
            [verifier_input.latents(tokens, states.grid) for tokens in states.batches(numbers, _DECODED_AT_ONCE)]
        )
        scaled_NCHW = (latents_NCHW / autoencoder.config.scaling_factor).to(
            autoencoder.device, memory_format=torch.channels_last
        )
        images = [
            autoencoder.decode(batch).sample.clamp(-1, 1).half().cpu() for batch in scaled_NCHW.split(_DECODED_AT_ONCE)
        ]
        return cls(latents_NCHW, torch.cat(images))


def tiny_decoder_loss(model: AutoencoderTiny, decoded: DecodedLatents, batch_size: int, seed: int) -> LossAtStep:
    """Return the loss per step: pixel error and edge error against the full decoder's images, as the full one's own."""

    def loss_at_step(step: int) -> Tensor:
        count = len(decoded.latents_NCHW)
        rows = torch.randint(count, (batch_size,), generator=generator_for_step(seed, step))
        latents_NCHW = decoded.latents_NCHW[rows].to(model.device, memory_format=torch.channels_last)
        images_N3HW = decoded.images_N3HW[rows].to(model.device).float()
        return reconstruction_loss(model.decode(latents_NCHW).sample, images_N3HW)

    return loss_at_step


def previews(model: AutoencoderTiny, decoded: DecodedLatents) -> Tensor:
    """Return the previews (N, 3, H, W) of decoded latents, in [-1, 1]."""
    batches = decoded.latents_NCHW.split(_DECODED_AT_ONCE)
    return torch.cat([decode_previews(model, batch).clamp(-1, 1).cpu() for batch in batches])


def peak_signal_to_noise(images_N3HW: Tensor, expected_N3HW: Tensor) -> float:
    """Return the mean PSNR of images in [-1, 1], in decibels."""
    error_N = (images_N3HW.float() - expected_N3HW.float()).square().flatten(1).mean(1) / 4
    return float((-10 * error_N.log10()).mean())


def kept_labels(previews_N3HW: Tensor, rows: StoredRows, numbers: Sequence[int], evaluator: Evaluator) -> float:
    """Return the share in [0, 1] of rows whose preview gets the label that their image has."""
    metadata = rows.column("metadata")
    lines = [PromptLine(rows.prompts[number], metadata[number], f"row {number}") for number in numbers]
    evaluations = evaluator(lines, to_images(previews_N3HW))
    return float(np.mean([each.correct for each in evaluations] == rows.correct[list(numbers)]))


def to_images(images_N3HW: Tensor) -> list[Image.Image]:
    """Turn images in [-1, 1] into PIL images."""
    pixels = ((images_N3HW.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(each) for each in pixels]


def decoder_flops(model: AutoencoderTiny | AutoencoderDC) -> int:
    """Count the FLOPs of decoding one image."""
    latents_NCHW = torch.zeros(1, *NOISE_SHAPE, device=model.device, dtype=model.dtype)
    with torch.no_grad():
        return count_flops(lambda: model.decode(latents_NCHW))
