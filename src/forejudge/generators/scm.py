"""One step of SCM in trigflow form, as diffusers' `SanaSprintPipeline` and `SCMScheduler` take it, in the same order.

A time is an angle: pi / 2 is pure noise, 0 the clean latent. `sigma` is the scheduler's sigma_data.
"""

import torch
from torch import Tensor


def noise_share(angle_N: Tensor) -> Tensor:
    """What the transformer is told of an angle: sin / (cos + sin), in [0, 1]."""
    return torch.sin(angle_N) / (torch.cos(angle_N) + torch.sin(angle_N))


def model_input(noisy_NCHW: Tensor, share_N: Tensor, sigma: float) -> Tensor:
    """Noisy latents as the transformer takes them."""
    share = share_N.view(-1, 1, 1, 1)
    return noisy_NCHW / sigma * torch.sqrt(share**2 + (1 - share) ** 2)


def clean_latents(output_NCHW: Tensor, noisy_NCHW: Tensor, angle: Tensor, sigma: float) -> Tensor:
    """The clean latents that the transformer's output for noisy ones at an angle predicts, in float32."""
    share_N = noise_share(angle.expand(len(noisy_NCHW)))
    share, shown = share_N.view(-1, 1, 1, 1), model_input(noisy_NCHW, share_N, sigma)
    velocity = ((1 - 2 * share) * shown + (1 - 2 * share + 2 * share**2) * output_NCHW) / (
        torch.sqrt(share**2 + (1 - share) ** 2)
    )
    return torch.cos(angle) * noisy_NCHW - torch.sin(angle) * (velocity.float() * sigma)


def noised_again(clean_NCHW: Tensor, noise_NCHW: Tensor, angle: Tensor) -> Tensor:
    """Clean latents mixed with fresh noise (of standard deviation sigma) for the step that starts at an angle."""
    return torch.cos(angle) * clean_NCHW + torch.sin(angle) * noise_NCHW
