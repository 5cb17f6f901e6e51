"""PixArt that can stop anywhere: the same pictures, bit for bit, as the pipeline's own call."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, LCMScheduler, PixArtAlphaPipeline
from tests.doubles import CPU, PROMPT
from tests.pipeline_state import state_of
from tests.tiny import save_tiny_verifier
from tests.tiny_pixart import BETAS, BLOCKS, DMD, LCM, call_plainly, new_pipeline, save_tiny_pixart

from forejudge import BestOfN
from forejudge.errors import InvalidRequest
from forejudge.generators import load_generator
from forejudge.generators.base import Sampling
from forejudge.generators.pixart import MAX_TEXT_TOKENS, PixArt, PixArtOptions
from forejudge.types import IMAGE, NOISE, Candidates, Stage, latent_stage, prefix_stage

SEEDS = (7, 2**32 - 1, 123456789)
WAYS = [(DMD, 1), (LCM, 1), (LCM, 2), (LCM, 4)]


@pytest.fixture(scope="module")
def pipeline() -> PixArtAlphaPipeline:
    return new_pipeline()


@pytest.fixture(scope="module")
def generator(pipeline: PixArtAlphaPipeline) -> PixArt:
    return PixArt(pipeline, "tiny")


def drawn(generator: PixArt, seeds: tuple[int, ...], *stops: Stage, **sampling: Any) -> Candidates:
    """Candidates taken to the last stop, in one call of `advance` for each."""
    candidates = generator.start(generator.encode(PROMPT, Sampling(**sampling)), seeds)
    for stop in stops:
        candidates = generator.advance(candidates, [stop])
    return candidates


def pixels(pictures: Any) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


@pytest.mark.parametrize(("scheduler", "steps"), WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cut", [0, 2, BLOCKS])
def test_candidates_are_the_pictures_of_the_plain_call(
    scheduler: Any, steps: int, dtype: torch.dtype, cut: int
) -> None:
    """Bit for bit at equal batch composition, in each precision: of one candidate, and of several."""
    pipeline = new_pipeline(scheduler).to(dtype)
    generator = PixArt(pipeline, "tiny")
    for seeds in (SEEDS[:1], SEEDS):
        found = drawn(generator, seeds, prefix_stage(cut), latent_stage(steps - 1), IMAGE, steps=steps)
        latents = call_plainly(pipeline, list(seeds), steps, output_type="latent")
        assert torch.equal(found.tensor(latent_stage(steps - 1)), latents)
        assert np.array_equal(pixels(found.pictures), pixels(call_plainly(pipeline, list(seeds), steps)))


def test_the_clean_latent_is_what_dmd_takes_for_it(generator: PixArt, pipeline: PixArtAlphaPipeline) -> None:
    """x0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t) of pure noise at t = 400, eps the first half of the output."""
    seen: list[torch.Tensor] = []
    hook = pipeline.transformer.register_forward_hook(lambda *call: seen.append(call[-1][0]))
    call_plainly(pipeline, list(SEEDS))
    hook.remove()
    noise_NCHW = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])
    kept = pipeline.scheduler.alphas_cumprod[400]
    expected = (noise_NCHW - (1 - kept).sqrt() * seen[0][:, :4]) / kept.sqrt()
    torch.testing.assert_close(drawn(generator, SEEDS, latent_stage()).tensor(latent_stage()), expected)


def test_the_start_timestep_may_be_another(pipeline: PixArtAlphaPipeline) -> None:
    generator = PixArt(pipeline, "tiny", PixArtOptions(start_timestep=700))
    plain = call_plainly(pipeline, list(SEEDS), timesteps=[700])
    assert np.array_equal(pixels(drawn(generator, SEEDS, IMAGE).pictures), pixels(plain))


def test_other_things_than_noise_may_be_predicted() -> None:
    """As YOSO does: velocities, in one step of an LCMScheduler."""
    pipeline = new_pipeline(LCMScheduler(prediction_type="v_prediction", **BETAS), out_channels=4)
    found = drawn(PixArt(pipeline, "tiny"), SEEDS, IMAGE)
    assert np.array_equal(pixels(found.pictures), pixels(call_plainly(pipeline, list(SEEDS))))


@pytest.mark.parametrize("steps", [1, 3])
def test_judged_in_a_batch_a_picture_differs_by_at_most_one_grey_level(steps: int) -> None:
    pipeline = new_pipeline(LCM)
    generator = PixArt(pipeline, "tiny")
    candidates = drawn(generator, SEEDS, prefix_stage(2), steps=steps)
    for row in (2, 0):
        alone = generator.advance(candidates[[row]], [IMAGE])
        difference = pixels(alone.pictures) - pixels(call_plainly(pipeline, [SEEDS[row]], steps))
        assert np.abs(difference).max() <= 1


def test_a_later_step_can_be_judged_as_well() -> None:
    pipeline = new_pipeline(LCM)
    stops = [prefix_stage(3), latent_stage(0), prefix_stage(1, step=1), prefix_stage(2, step=1), latent_stage(2), IMAGE]
    candidate = drawn(PixArt(pipeline, "tiny"), SEEDS[:1], *stops, steps=4)
    assert np.array_equal(pixels(candidate.pictures), pixels(call_plainly(pipeline, [SEEDS[0]], steps=4)))
    assert set(candidate.views) == set(stops)


def test_several_stages_are_read_on_one_way(generator: PixArt) -> None:
    together = generator.advance(drawn(generator, SEEDS), [IMAGE, NOISE, prefix_stage(2), latent_stage()])
    one_by_one = drawn(generator, SEEDS, NOISE, prefix_stage(2), latent_stage(), IMAGE)
    assert together.stage == one_by_one.stage == IMAGE
    for stage in (NOISE, prefix_stage(2), latent_stage()):
        assert torch.equal(together.tensor(stage), one_by_one.tensor(stage))
    assert together.tensor(prefix_stage(2)).shape == (3, 16, 48)
    assert together.tensor(latent_stage()).shape == (3, 4, 8, 8)


def test_noise_may_be_given(generator: PixArt) -> None:
    conditioning = generator.encode(PROMPT, Sampling())
    noise_NCHW = generator.advance(generator.start(conditioning, SEEDS), [NOISE]).tensor(NOISE)
    given = generator.advance(generator.start(conditioning, (0, 1, 2), noise_NCHW), [IMAGE])
    assert np.array_equal(pixels(given.pictures), pixels(drawn(generator, SEEDS, IMAGE).pictures))


def test_a_prompt_without_its_padding_makes_the_same_candidates(generator: PixArt) -> None:
    whole = generator.encode(PROMPT, Sampling())
    trimmed = generator.trim(whole)
    assert trimmed.text_NLD.shape[1] == trimmed.mask_NL.sum() < whole.text_NLD.shape[1] // 4
    found, expected = (
        generator.advance(generator.start(conditioning, SEEDS), [prefix_stage(2), IMAGE])
        for conditioning in (trimmed, whole)
    )
    torch.testing.assert_close(found.tensor(prefix_stage(2)), expected.tensor(prefix_stage(2)))
    assert np.abs(pixels(found.pictures) - pixels(expected.pictures)).max() <= 1


@pytest.mark.parametrize("size", [{"height": 320, "width": 200}, {}, {"width": 150, "height": 600}])
def test_the_nearest_size_of_the_training_is_drawn(size: dict[str, int]) -> None:
    pipeline = new_pipeline(sample_size=32)
    candidates = drawn(PixArt(pipeline, "tiny"), SEEDS[:1], IMAGE, **size)
    plain = call_plainly(pipeline, [SEEDS[0]], use_resolution_binning=True, **size)
    assert candidates.pictures[0].size == (size.get("width", 256), size.get("height", 256))
    assert np.array_equal(pixels(candidates.pictures), pixels(plain))


@pytest.mark.parametrize("size", [{"height": 64, "width": 112}, {"height": 48, "width": 48}])
def test_a_model_of_1024_pixels_is_told_the_size(size: dict[str, int]) -> None:
    pipeline = new_pipeline(sample_size=128)
    generator = PixArt(pipeline, "tiny", PixArtOptions(use_resolution_binning=False))
    found = drawn(generator, SEEDS, prefix_stage(1), IMAGE, **size)
    assert np.array_equal(pixels(found.pictures), pixels(call_plainly(pipeline, list(SEEDS), **size)))


@pytest.mark.parametrize("size", [{"height": 65}, {"width": 72}, {"height": 8}])
def test_a_size_that_does_not_fit_the_patches_is_refused(generator: PixArt, size: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match="both sides must be multiples of 16"):
        generator.encode(PROMPT, Sampling(**size))


@pytest.mark.parametrize("scale", [None, 0, 1])
def test_no_guidance_may_be_said_in_three_ways(generator: PixArt, scale: float | None) -> None:
    generator.encode(PROMPT, Sampling(guidance_scale=scale))


@pytest.mark.parametrize("sampling", [{"guidance_scale": 4.5}, {"lora_scale": 0.5}])
def test_what_it_cannot_do_is_refused(generator: PixArt, sampling: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(sampling))} = .*: PixArt"):
        generator.encode(PROMPT, Sampling(**sampling))


def test_steps_that_the_scheduler_does_not_take_are_refused(generator: PixArt) -> None:
    with pytest.raises(InvalidRequest, match=r"PixArt with a DDPMScheduler \(DMD\) draws in one step, not in 2"):
        generator.encode(PROMPT, Sampling(steps=2))
    with pytest.raises(InvalidRequest, match="at most 50 steps, not in 51"):
        PixArt(new_pipeline(LCM), "tiny").encode(PROMPT, Sampling(steps=51))
    with pytest.raises(InvalidRequest, match="needs more than the 1 steps"):
        drawn(generator, SEEDS, prefix_stage(1, step=1))


def test_a_scheduler_of_many_steps_is_refused() -> None:
    pipeline = new_pipeline()
    pipeline.scheduler = DPMSolverMultistepScheduler(**BETAS)
    with pytest.raises(InvalidRequest, match="PixArt with a DPMSolverMultistepScheduler draws in many steps"):
        PixArt(pipeline, "tiny")


@pytest.mark.parametrize("prompt", ["", "  \n\t "])
def test_an_empty_prompt_is_refused(generator: PixArt, prompt: str) -> None:
    with pytest.raises(InvalidRequest, match="the prompt is empty"):
        generator.encode(prompt, Sampling())


def test_a_prompt_is_refused_from_the_first_token_that_would_be_cut(generator: PixArt) -> None:
    """The end mark takes a place, too."""
    words = ["red"] * (MAX_TEXT_TOKENS - 1)
    assert generator.encode(" ".join(words), Sampling()).mask_NL.sum() == MAX_TEXT_TOKENS == 120
    with pytest.raises(
        InvalidRequest, match="has 121 tokens and the text encoder takes 120; this would be cut: 'blue'"
    ):
        generator.encode(" ".join([*words, "blue"]), Sampling())


def test_prompts_are_read_as_the_pipeline_does(generator: PixArt) -> None:
    """In lower case, without outer blanks."""
    shouted = generator.encode(f"  {PROMPT.upper()}\n", Sampling())
    assert torch.equal(shouted.text_NLD, generator.encode(PROMPT, Sampling()).text_NLD)


def test_the_caller_s_pipeline_is_left_as_it_was() -> None:
    pipeline = new_pipeline(LCM)
    pipeline.scheduler.set_timesteps(7)
    before = state_of(pipeline)
    drawn(PixArt(pipeline, "tiny"), SEEDS, prefix_stage(2), IMAGE, steps=2)
    assert state_of(pipeline) == before


def test_drawing_leaves_the_global_generator_alone(generator: PixArt) -> None:
    before = torch.get_rng_state()
    drawn(generator, SEEDS, IMAGE)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_fingerprint_tells_weights_apart_but_not_dtypes(generator: PixArt) -> None:
    assert PixArt(new_pipeline().to(torch.bfloat16), "half").fingerprint == generator.fingerprint
    other = new_pipeline()
    with torch.no_grad():
        other.transformer.proj_out.weight += 0.01
    assert PixArt(other, "other").fingerprint != generator.fingerprint


def test_the_architecture_is_described(generator: PixArt) -> None:
    assert generator.architecture.model_dump() == {
        "transformer": "PixArtTransformer2DModel",
        "width": 48,
        "num_blocks": BLOCKS,
        "latent_channels": 4,
        "latent_size": 4,
        "text_width": 32,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pixart(tmp_path_factory.mktemp("pixart") / "generator")


def test_a_folder_is_loaded_by_the_class_of_its_pipeline(folder: Path, generator: PixArt) -> None:
    loaded = load_generator(f"{folder},start_timestep=400", CPU, torch.float32)
    assert isinstance(loaded, PixArt)
    assert loaded.fingerprint == generator.fingerprint
    assert np.array_equal(pixels(drawn(loaded, SEEDS, IMAGE).pictures), pixels(drawn(generator, SEEDS, IMAGE).pictures))


def test_a_folder_from_before_the_class_had_its_name_is_loaded(folder: Path, generator: PixArt) -> None:
    """As the weights of the time were published: as a Transformer2DModel."""
    for file, place in (("model_index.json", ["transformer"]), ("transformer/config.json", ["_class_name"])):
        described = json.loads((folder / file).read_text())
        described[place[0]] = (
            ["diffusers", "Transformer2DModel"] if file == "model_index.json" else "Transformer2DModel"
        )
        (folder / file).write_text(json.dumps(described))
    loaded = load_generator(str(folder), CPU, torch.float32)
    assert loaded.fingerprint == generator.fingerprint


def test_a_verifier_reads_it_in_a_search(folder: Path, tmp_path: Path) -> None:
    verifier = save_tiny_verifier(tmp_path / "verifier", folder, num_prefix_blocks=2)
    best_of_n = BestOfN.from_pretrained(str(folder), str(verifier), device="cpu")
    result = best_of_n(PROMPT, n=4, seed=3)
    scores = [candidate.score for candidate in result.record.candidates]
    assert result.record.winner == int(np.argmax(scores))
    plain = call_plainly(new_pipeline(), [result.winner.seed])
    assert np.abs(pixels([result.image]) - pixels(plain)).max() <= 1
