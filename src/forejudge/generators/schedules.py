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


def to_scm_timestep(angle_N: Tensor) -> Tensor:
    """What the transformer is told of an angle: sin / (cos + sin), in [0, 1]."""
    return torch.sin(angle_N) / (torch.cos(angle_N) + torch.sin(angle_N))


def scm_model_input(latents_NCHW: Tensor, scm_timestep_N: Tensor, sigma: float) -> Tensor:
    """Noisy latents as the transformer takes them."""
    timestep = scm_timestep_N.view(-1, 1, 1, 1)
    return latents_NCHW / sigma * torch.sqrt(timestep**2 + (1 - timestep) ** 2)


def scm_pred_original_sample(output_NCHW: Tensor, latents_NCHW: Tensor, angle: Tensor, sigma: float) -> Tensor:
    """The clean latents that the transformer's output for noisy ones at an angle predicts, in float32."""
    scm_timestep_N = to_scm_timestep(angle.expand(len(latents_NCHW)))
    timestep, scaled_input = scm_timestep_N.view(-1, 1, 1, 1), scm_model_input(latents_NCHW, scm_timestep_N, sigma)
    velocity = ((1 - 2 * timestep) * scaled_input + (1 - 2 * timestep + 2 * timestep**2) * output_NCHW) / (
        torch.sqrt(timestep**2 + (1 - timestep) ** 2)
    )
    return torch.cos(angle) * latents_NCHW - torch.sin(angle) * (velocity.float() * sigma)


def scm_add_noise(pred_original_sample_NCHW: Tensor, noise_NCHW: Tensor, angle: Tensor) -> Tensor:
    """Clean latents mixed with fresh noise (of standard deviation sigma) for the step that starts at an angle."""
    return torch.cos(angle) * pred_original_sample_NCHW + torch.sin(angle) * noise_NCHW


@dataclass(frozen=True)
class FlowSchedule:
    """Of S steps: `timesteps_S` are what the pipeline divides by 1000 for the transformer, sigmas (S + 1,) end at 0."""

    timesteps_S: Tensor
    sigmas: Tensor

    @classmethod
    def from_config(cls, config: Any, steps: int, shift: float, device: torch.device) -> "FlowSchedule":
        """By a scheduler's config; `shift` (the pipeline's mu) matters where that shifts by the size of the picture.

        Before they are shifted, sigmas go down to 1 / steps, as FLUX's pipelines ask for.
        """
        sigmas = None if config.get("use_flow_sigmas") else np.linspace(1.0, 1 / steps, steps)
        return cls._from_config(config, steps, shift, device, sigmas)

    @classmethod
    def from_config_with_default_sigmas(
        cls, config: Any, steps: int, shift: float, device: torch.device
    ) -> "FlowSchedule":
        """The same with the scheduler's own sigmas, of which the last is its least, as SD3's pipeline leaves them."""
        return cls._from_config(config, steps, shift, device, None)

    @classmethod
    def _from_config(
        cls, config: Any, steps: int, shift: float, device: torch.device, sigmas: np.ndarray | None
    ) -> "FlowSchedule":
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
        timesteps_S, _ = retrieve_timesteps(scheduler, steps, device, sigmas=sigmas, mu=shift)
        return cls(timesteps_S, scheduler.sigmas)

    def next_latents(self, step: int, latents: Tensor, output: Tensor) -> Tensor:
        """What the step after `step` starts with, and after the last step the clean latent."""
        return _euler_step(latents, output, self.sigmas[step], self.sigmas[step + 1])

    def pred_original_sample(self, step: int, latents: Tensor, output: Tensor) -> Tensor:
        """The clean latent that the transformer's output in `step` predicts."""
        return _euler_step(latents, output, self.sigmas[step], self.sigmas[-1])


def dynamic_shift(config: Any, tokens: int) -> float:
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


def _euler_step(latents: Tensor, output: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    return (latents.float() + (next_sigma - sigma) * output).to(output.dtype)
