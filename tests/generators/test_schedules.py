"""SCM's arithmetic against the scheduler it was taken from."""

import math

import torch
from diffusers import SCMScheduler

from forejudge.generators.schedules import clean_latents, model_input, noise_share, noised_again

SIGMA = 0.5


def test_the_share_of_noise_goes_from_all_to_none() -> None:
    angles = torch.tensor([math.pi / 2, math.pi / 4, 0.0])
    torch.testing.assert_close(noise_share(angles), torch.tensor([1.0, 0.5, 0.0]))


def test_the_model_is_shown_pure_noise_at_unit_scale() -> None:
    noise = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    share_N = noise_share(torch.tensor(math.pi / 2).expand(2))
    torch.testing.assert_close(model_input(noise * SIGMA, share_N, SIGMA), noise)


def test_a_right_prediction_gives_the_clean_latent() -> None:
    """What the transformer is trained to say: noise minus picture, mixed linearly."""
    draw = torch.Generator().manual_seed(1)
    clean, noise = (torch.randn(2, 16, 8, 8, generator=draw) for _ in range(2))
    for angle in torch.tensor([1.57080, 1.3, 0.4]):
        noisy = (torch.cos(angle) * clean + torch.sin(angle) * noise) * SIGMA
        found = clean_latents(noise - clean, noisy, angle, SIGMA)
        torch.testing.assert_close(found, clean * SIGMA, rtol=0, atol=1e-5)


def test_noising_again_is_the_scheduler_s_step() -> None:
    scheduler = SCMScheduler(sigma_data=SIGMA)
    scheduler.set_timesteps(4, intermediate_timesteps=None)
    scheduler.set_begin_index(0)
    draw = torch.Generator().manual_seed(2)
    sample, velocity = (torch.randn(1, 16, 8, 8, generator=draw) for _ in range(2))
    stepped, clean = scheduler.step(
        velocity, scheduler.timesteps[0], sample, torch.Generator().manual_seed(3), return_dict=False
    )
    fresh = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(3)) * SIGMA
    assert torch.equal(noised_again(clean, fresh, scheduler.timesteps[1]), stepped)
