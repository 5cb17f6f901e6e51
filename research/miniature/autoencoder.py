"""Autoencoder of the miniature: an AutoencoderDC that compresses 64 x 64 pixels to 16 x 8 x 8 latents.

AutoencoderDC has one scalar scaling factor, so its latents are trained to mean 0 and variance 1 in every channel.
"""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC
from torch import Tensor

from forejudge.miniature.prompts import sample_descriptions
from forejudge.miniature.scenes import NOISE_SHAPE, SceneConstraints, couple, render
from research.miniature.train import LossAtStep, generator_for_step

_LATENT_NOISE = 0.05  # makes the decoder robust to small errors of the generator


def new_autoencoder() -> AutoencoderDC:
    """Return an untrained autoencoder of the miniature's size (0.7 M parameters)."""
    return AutoencoderDC(
        latent_channels=NOISE_SHAPE[0],
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=(16, 32, 64, 64),
        decoder_block_out_channels=(16, 32, 64, 64),
        encoder_layers_per_block=(0, 1, 1, 2),
        decoder_layers_per_block=(1, 1, 2, 2),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        downsample_block_type="Conv",
        upsample_block_type="interpolate",
        scaling_factor=1.0,
    )


def autoencoder_loss(autoencoder: AutoencoderDC, batch_size: int, seed: int) -> LossAtStep:
    """Return the loss per step: pixel error, edge error, and deviation of the latents from mean 0 and variance 1."""

    def loss_at_step(step: int) -> Tensor:
        generator = generator_for_step(seed, step)
        constraints = SceneConstraints.from_descriptions(sample_descriptions(batch_size, generator))
        noise = torch.randn(batch_size, *NOISE_SHAPE, generator=generator)
        image = to_model_range(render(couple(constraints, noise))).to(autoencoder.device)
        latents = autoencoder.encode(image).latent
        perturbation = torch.randn(latents.shape, generator=generator).to(latents)
        noisy = latents + _LATENT_NOISE * perturbation
        reconstruction = autoencoder.decode(noisy).sample
        return reconstruction_loss(reconstruction, image) + 0.05 * _standardization_loss(latents)

    return loss_at_step


def to_model_range(image: Tensor) -> Tensor:
    """Map [0, 1] to the autoencoder's [-1, 1], in the memory format of its fastest convolutions."""
    return (2 * image - 1).contiguous(memory_format=torch.channels_last)


def reconstruction_loss(reconstruction: Tensor, image: Tensor) -> Tensor:
    """Return pixel error and edge error of images in [-1, 1]."""
    edges = [F.l1_loss(reconstruction.diff(dim=axis), image.diff(dim=axis)) for axis in (2, 3)]
    return F.l1_loss(reconstruction, image) + F.mse_loss(reconstruction, image) + edges[0] + edges[1]


def _standardization_loss(latents: Tensor) -> Tensor:
    mean, variance = latents.mean(dim=(0, 2, 3)), latents.var(dim=(0, 2, 3))
    return mean.square().mean() + (variance - 1).square().mean()
