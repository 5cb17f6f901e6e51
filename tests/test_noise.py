"""Seeds and noise: pure functions, and the noise that diffusers draws."""

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from forejudge.errors import InvalidRequest
from forejudge.noise import CandidateSeeds, candidate_seed, noise, noise_batch, noise_generator, split_seed
from forejudge.options import MAX_SEED

SHAPE = (16, 8, 8)


def test_the_seed_of_a_candidate_never_changes() -> None:
    assert candidate_seed(0, "a photo of a red circle", 0, 0) == 612761936
    assert candidate_seed(7, "a photo of a red circle", 2, 5) == 3881852705


def test_the_run_seed_of_a_split_never_changes() -> None:
    assert (split_seed("training", 3), split_seed("validation", 3)) == (3691280726, 1084721645)
    assert split_seed("test", 3) == 565517586


def test_seeds_made_as_needed_are_those_of_the_candidates() -> None:
    seeds = CandidateSeeds(7, "a star", 2, 5)
    expected = tuple(candidate_seed(7, "a star", 2, index) for index in range(5))
    assert (seeds[3], seeds[1:4], seeds[:]) == (expected[3], expected[1:4], expected)


def test_a_seed_depends_on_everything_that_names_a_candidate() -> None:
    cases = [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1), (0, "a", 11, 1)]
    assert len({candidate_seed(*case) for case in cases}) == len(cases)
    assert candidate_seed(0, "  a \n", 0, 0) == candidate_seed(0, "a", 0, 0)


def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"the prompt has the character '\\ud83d', half of a pair"):
        candidate_seed(0, "a star \ud83d", 0, 0)


def test_seeds_fill_32_bits() -> None:
    seeds = [candidate_seed(0, "a", 0, index) for index in range(2000)]
    assert len(set(seeds)) == 2000
    assert 0 <= min(seeds) < 0.01 * MAX_SEED
    assert 0.99 * MAX_SEED < max(seeds) <= MAX_SEED == 2**32 - 1


@pytest.mark.parametrize("seed", [0, 1, MAX_SEED])
def test_noise_equals_that_of_diffusers_draw_by_draw(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for draw in range(4):
        assert torch.equal(noise(seed, draw, SHAPE), randn_tensor((1, *SHAPE), generator=generator))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_noise_of_a_dtype_equals_that_of_diffusers(dtype: torch.dtype) -> None:
    """After some draws, too: a scheduler that draws for itself goes on from there."""
    generator = torch.Generator().manual_seed(7)
    for draw in range(3):
        source = noise_generator(7, draw, SHAPE, dtype)
        expected = randn_tensor((1, *SHAPE), generator=generator, dtype=dtype)
        assert torch.equal(noise(7, draw, SHAPE, dtype), expected)
        assert torch.equal(randn_tensor((1, *SHAPE), generator=source, dtype=dtype), expected)


def test_noise_of_a_batch_is_that_of_its_seeds() -> None:
    seeds = (5, 2**32 - 1, 0)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for draw in range(3):
        expected = randn_tensor((3, *SHAPE), generator=generators)
        assert torch.equal(noise_batch(seeds, draw, SHAPE), expected)
    assert torch.equal(noise_batch(seeds[::-1], 0, SHAPE), noise_batch(seeds, 0, SHAPE).flip(0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_noise_of_a_batch_has_the_dtype_asked_for(dtype: torch.dtype) -> None:
    expected = torch.cat([noise(seed, 1, SHAPE, dtype) for seed in (5, 6)])
    assert expected.dtype == dtype
    batch = noise_batch((5, 6), 1, SHAPE, dtype)
    assert batch.dtype == dtype
    assert torch.equal(batch, expected)


def test_noise_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    noise(3, 2, SHAPE)
    assert torch.equal(torch.get_rng_state(), before)
