"""Step arithmetic of diffusers' schedulers, in their order: SCM for SANA-Sprint, Euler flow matching for FLUX and SD3.

SCM (trigflow form, `SanaSprintPipeline` and `SCMScheduler`): a time is an angle, pi / 2 for pure noise and 0 for clean
latents. Flow matching (`FlowMatchEulerDiscreteScheduler`): a sigma is the share of noise in the latents, from 1 (noise)
to 0 (clean), and the transformer predicts noise minus clean latents.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps
from torch import Tensor

from forejudge.errors import InvalidRequest


def to_scm_timestep(angle_N: Tensor) -> Tensor:
    """Return the transformer's timestep for an angle: sin / (cos + sin), in [0, 1]."""
    return torch.sin(angle_N) / (torch.cos(angle_N) + torch.sin(angle_N))


def scm_model_input(latents_NCHW: Tensor, scm_timestep_N: Tensor, sigma_data: float) -> Tensor:
    """Scale noisy latents to what the transformer takes."""
    timestep = scm_timestep_N.view(-1, 1, 1, 1)
    return latents_NCHW / sigma_data * torch.sqrt(timestep**2 + (1 - timestep) ** 2)


def scm_pred_original_sample(output_NCHW: Tensor, latents_NCHW: Tensor, angle: Tensor, sigma_data: float) -> Tensor:
    """Predict clean latents, in float32, from the transformer's output for noisy ones at an angle."""
    scm_timestep_N = to_scm_timestep(angle.expand(len(latents_NCHW)))
    timestep, scaled_input = scm_timestep_N.view(-1, 1, 1, 1), scm_model_input(latents_NCHW, scm_timestep_N, sigma_data)
    velocity = ((1 - 2 * timestep) * scaled_input + (1 - 2 * timestep + 2 * timestep**2) * output_NCHW) / (
        torch.sqrt(timestep**2 + (1 - timestep) ** 2)
    )
    return torch.cos(angle) * latents_NCHW - torch.sin(angle) * (velocity.float() * sigma_data)


def scm_add_noise(pred_original_sample_NCHW: Tensor, noise_NCHW: Tensor, angle: Tensor) -> Tensor:
    """Mix clean latents with fresh noise (of standard deviation sigma_data) for the step that starts at an angle."""
    return torch.cos(angle) * pred_original_sample_NCHW + torch.sin(angle) * noise_NCHW


@dataclass(frozen=True)
class FlowSchedule:
    """Schedule of S flow-matching steps.

    `timesteps_S` are what the pipeline divides by 1000 for the transformer; `sigmas` (S + 1,) end at 0.
    """

    timesteps_S: Tensor
    sigmas: Tensor

    @classmethod
    def from_config(
        cls, config: Any, steps: int, shift: float, device: torch.device, *, linear_sigmas: bool = True
    ) -> "FlowSchedule":
        """Build the schedule of a scheduler's config; `shift` is the pipeline's mu, for dynamic shifting.

        With `linear_sigmas`, sigmas before shifting fall evenly to 1 / steps, as FLUX's pipelines pass them; without,
        they are the scheduler's own, as in SD3's pipeline.
        """
        use_linear = linear_sigmas and not config.get("use_flow_sigmas")
        sigmas = np.linspace(1.0, 1 / steps, steps) if use_linear else None
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(config)
        timesteps_S, _ = retrieve_timesteps(scheduler, steps, device, sigmas=sigmas, mu=shift)
        return cls(timesteps_S, scheduler.sigmas)

    def next_latents(self, step: int, latents: Tensor, output: Tensor) -> Tensor:
        """Return the latents at the start of the next step, or the clean ones after the last step."""
        return _euler_step(latents, output, self.sigmas[step], self.sigmas[step + 1])

    def pred_original_sample(self, step: int, latents: Tensor, output: Tensor) -> Tensor:
        """Return the clean latents that the transformer's output in `step` predicts."""
        return _euler_step(latents, output, self.sigmas[step], self.sigmas[-1])


class FlowConditioning:
    """Base of encoded prompts whose candidates are generated in flow-matching steps."""

    schedule: FlowSchedule
    mask_NL: ClassVar[None] = None  # their transformers read padding as text

    @property
    def timesteps(self) -> Tensor:
        """See `Conditioning.timesteps`."""
        return self.schedule.timesteps_S


def dynamic_shift(config: Any, tokens: int) -> float:
    """Return the shift for an image of `tokens` tokens, as the pipelines of FLUX.1 and SD3 pass it to the scheduler."""
    bounds = config.base_image_seq_len, config.max_image_seq_len, config.base_shift, config.max_shift
    shift: float = calculate_shift(tokens, *bounds)
    return shift


def check_scheduler(scheduler: Any) -> None:
    """Raise InvalidRequest for a scheduler that does not take deterministic Euler steps."""
    if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        raise InvalidRequest(
            f"scheduler {type(scheduler).__name__} is not supported: give the pipeline a "
            "FlowMatchEulerDiscreteScheduler"
        )
    if scheduler.config.stochastic_sampling:
        raise InvalidRequest(
            "the scheduler adds random noise in each step (stochastic_sampling = true), so a seed would not reproduce "
            "its image: set stochastic_sampling to false"
        )


def _euler_step(latents: Tensor, output: Tensor, sigma: Tensor, next_sigma: Tensor) -> Tensor:
    return (latents.float() + (next_sigma - sigma) * output).to(output.dtype)
