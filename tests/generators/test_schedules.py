"""SCM's arithmetic against the scheduler it was taken from."""

import math

import torch
from diffusers import SCMScheduler

from forejudge.generators.schedules import scm_add_noise, scm_model_input, scm_pred_original_sample, to_scm_timestep

SIGMA = 0.5


def test_the_share_of_noise_goes_from_all_to_none() -> None:
    angles = torch.tensor([math.pi / 2, math.pi / 4, 0.0])
    torch.testing.assert_close(to_scm_timestep(angles), torch.tensor([1.0, 0.5, 0.0]))


def test_the_model_is_shown_pure_noise_at_unit_scale() -> None:
    noise = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    scm_timestep_N = to_scm_timestep(torch.tensor(math.pi / 2).expand(2))
    torch.testing.assert_close(scm_model_input(noise * SIGMA, scm_timestep_N, SIGMA), noise)


def test_a_right_prediction_gives_the_clean_latent() -> None:
    """The transformer is trained to predict noise minus image, mixed linearly."""
    draw = torch.Generator().manual_seed(1)
    pred_original_sample, noise = (torch.randn(2, 16, 8, 8, generator=draw) for _ in range(2))
    for angle in torch.tensor([1.57080, 1.3, 0.4]):
        latents = (torch.cos(angle) * pred_original_sample + torch.sin(angle) * noise) * SIGMA
        found = scm_pred_original_sample(noise - pred_original_sample, latents, angle, SIGMA)
        torch.testing.assert_close(found, pred_original_sample * SIGMA, rtol=0, atol=1e-5)


def test_noising_again_is_the_scheduler_s_step() -> None:
    scheduler = SCMScheduler(sigma_data=SIGMA)
    scheduler.set_timesteps(4, intermediate_timesteps=None)
    scheduler.set_begin_index(0)
    draw = torch.Generator().manual_seed(2)
    sample, velocity = (torch.randn(1, 16, 8, 8, generator=draw) for _ in range(2))
    stepped, pred_original_sample = scheduler.step(
        velocity, scheduler.timesteps[0], sample, torch.Generator().manual_seed(3), return_dict=False
    )
    fresh = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3)) * SIGMA
    assert torch.equal(scm_add_noise(pred_original_sample, fresh, scheduler.timesteps[1]), stepped)
