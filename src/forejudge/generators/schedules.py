"""Flow matching in Euler steps, as diffusers' `FlowMatchEulerDiscreteScheduler` takes them, in the same order.

A sigma is the share of noise in a latent, from 1 (noise) to 0 (clean); a transformer predicts noise minus clean latent.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps
from torch import Tensor

from forejudge.errors import InvalidRequest

# FOLDED: One step of SCM in trigflow form, as diffusers' `SanaSprintPipeline` and `SCMScheduler` take it, in the same order.
#
# A time is an angle: pi / 2 is pure noise, 0 the clean latent. `sigma` is the scheduler's sigma_data.


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


@dataclass(frozen=True)
class FlowSchedule:
    """Of S steps: `timesteps_S` are what the pipeline divides by 1000 for the transformer, sigmas (S + 1,) end at 0."""

    timesteps_S: Tensor
    sigmas: Tensor

    @classmethod
    def of(cls, config: Any, steps: int, shift: float, device: torch.device) -> "FlowSchedule":
        """By a scheduler's config; `shift` (the pipeline's mu) matters where that shifts by the size of the picture.

        Before they are shifted, sigmas go down to 1 / steps, as FLUX's pipelines ask for.
        """
        sigmas = None if config.get("use_flow_sigmas") else np.linspace(1.0, 1 / steps, steps)
        return cls._of(config, steps, shift, device, sigmas)

    @classmethod
    def of_scheduler(cls, config: Any, steps: int, shift: float, device: torch.device) -> "FlowSchedule":
        """The same with the scheduler's own sigmas, of which the last is its least, as SD3's pipeline leaves them."""
        return cls._of(config, steps, shift, device, None)

    @classmethod
    def _of(
        cls, config: Any, steps: int, shift: float, device: torch.device, sigmas: np.ndarray | None
    ) -> "FlowSchedule":
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
        timesteps_S, _ = retrieve_timesteps(scheduler, steps, device, sigmas=sigmas, mu=shift)
        return cls(timesteps_S, scheduler.sigmas)

    def following(self, step: int, noisy: Tensor, output: Tensor) -> Tensor:
        """What the step after `step` starts with, and after the last step the clean latent."""
        return _moved(noisy, output, self.sigmas[step], self.sigmas[step + 1])

    def clean(self, step: int, noisy: Tensor, output: Tensor) -> Tensor:
        """The clean latent that the transformer's output in `step` predicts."""
        return _moved(noisy, output, self.sigmas[step], self.sigmas[-1])


def shift_by_size(config: Any, tokens: int) -> float:
    """The shift for a picture of so many tokens, as the pipelines of FLUX.1 and SD3 tell the scheduler."""
    bounds = config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    shift: float = calculate_shift(tokens, *bounds)
    return shift


def check_scheduler(scheduler: Any) -> None:
    """Raises InvalidRequest for a scheduler whose steps are not plain Euler steps."""
    if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        raise InvalidRequest(
            f"a {type(scheduler).__name__} does not take the steps that are cut here: give the pipeline a "
            "FlowMatchEulerDiscreteScheduler"
        )
    if scheduler.config.stochastic_sampling:
        raise InvalidRequest(
            "the scheduler draws fresh noise in each step, which no seed of a candidate decides: "
            "set its stochastic_sampling to false"
        )


def _moved(noisy: Tensor, output: Tensor, sigma: Tensor, to_sigma: Tensor) -> Tensor:
    return (noisy.float() + (to_sigma - sigma) * output).to(output.dtype)
