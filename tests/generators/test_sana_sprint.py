"""SANA-Sprint that can stop anywhere: the same pictures, bit for bit, as the pipeline's own call."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import SanaSprintPipeline
from tests.doubles import PROMPT, call_plainly, load_pipeline
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators.base import OPTIONS_FILE, Sampling
from forejudge.generators.sana_sprint import SanaSprint
from forejudge.types import IMAGE, NOISE, Candidates, Stage, latent_stage, prefix_stage

BLOCKS = 4
SEEDS = (7, 2**32 - 1, 123456789)


@pytest.fixture(scope="module")
def pipeline(tiny_generator: Path) -> SanaSprintPipeline:
    return load_pipeline(tiny_generator)


@pytest.fixture(scope="module")
def generator(pipeline: SanaSprintPipeline) -> SanaSprint:
    return SanaSprint(pipeline, "tiny")


def drawn(generator: SanaSprint, seeds: tuple[int, ...], *stops: Stage, steps: int = 1) -> Candidates:
    """Candidates taken to the last stop, in one call of `advance` for each."""
    candidates = generator.start(generator.encode(PROMPT, Sampling(steps=steps)), seeds)
    for stop in stops:
        candidates = generator.advance(candidates, [stop])
    return candidates


def pixels(pictures: Any) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in pictures]).astype(int)


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("cut", range(BLOCKS + 1))
def test_a_candidate_is_the_picture_of_the_plain_call(
    generator: SanaSprint, pipeline: SanaSprintPipeline, cut: int, steps: int
) -> None:
    candidate = drawn(generator, SEEDS[:1], prefix_stage(cut), latent_stage(steps - 1), IMAGE, steps=steps)
    (latent,) = call_plainly(pipeline, [SEEDS[0]], steps, output_type="latent")
    assert torch.equal(candidate.tensor(latent_stage(steps - 1))[0], latent)
    assert np.array_equal(pixels(candidate.pictures), pixels(call_plainly(pipeline, [SEEDS[0]], steps)))


def test_a_prompt_without_its_padding_makes_the_same_candidates(generator: SanaSprint) -> None:
    whole = generator.encode(PROMPT, Sampling())
    trimmed = generator.trim(whole)
    assert trimmed.text_NLD.shape[1] == trimmed.mask_NL.sum() < whole.text_NLD.shape[1] // 4
    found, expected = (
        generator.advance(generator.start(conditioning, SEEDS), [prefix_stage(2), IMAGE])
        for conditioning in (trimmed, whole)
    )
    torch.testing.assert_close(found.tensor(prefix_stage(2)), expected.tensor(prefix_stage(2)))
    assert np.abs(pixels(found.pictures) - pixels(expected.pictures)).max() <= 1


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_batch_is_that_of_the_plain_call(generator: SanaSprint, pipeline: SanaSprintPipeline, steps: int) -> None:
    """Bit for bit at equal batch composition."""
    candidates = drawn(generator, SEEDS, prefix_stage(2), IMAGE, steps=steps)
    assert np.array_equal(pixels(candidates.pictures), pixels(call_plainly(pipeline, list(SEEDS), steps)))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_judged_in_a_batch_a_picture_differs_by_at_most_one_grey_level(
    generator: SanaSprint, pipeline: SanaSprintPipeline, steps: int
) -> None:
    candidates = drawn(generator, SEEDS, prefix_stage(2), steps=steps)
    for row, seed in enumerate(SEEDS):
        alone = generator.advance(candidates[[row]], [IMAGE])
        difference = pixels(alone.pictures) - pixels(call_plainly(pipeline, [seed], steps))
        assert np.abs(difference).max() <= 1


def test_a_later_step_can_be_judged_as_well(generator: SanaSprint, pipeline: SanaSprintPipeline) -> None:
    stops = [prefix_stage(3), latent_stage(0), prefix_stage(1, step=1), prefix_stage(2, step=1), latent_stage(2), IMAGE]
    candidate = drawn(generator, SEEDS[:1], *stops, steps=4)
    assert np.array_equal(pixels(candidate.pictures), pixels(call_plainly(pipeline, [SEEDS[0]], steps=4)))
    assert set(candidate.views) == set(stops)


def test_several_stages_are_read_on_one_way(generator: SanaSprint) -> None:
    together = generator.advance(drawn(generator, SEEDS), [IMAGE, NOISE, prefix_stage(2), latent_stage()])
    one_by_one = drawn(generator, SEEDS, NOISE, prefix_stage(2), latent_stage(), IMAGE)
    assert together.stage == one_by_one.stage == IMAGE
    for stage in (NOISE, prefix_stage(2), latent_stage()):
        assert torch.equal(together.tensor(stage), one_by_one.tensor(stage))
    assert together.tensor(prefix_stage(2)).shape == (3, 64, 64)
    assert together.tensor(latent_stage()).shape == (3, 16, 8, 8)


def test_other_steps_than_asked_for_are_refused(generator: SanaSprint) -> None:
    with pytest.raises(InvalidRequest, match="needs more than the 2 steps"):
        drawn(generator, SEEDS, prefix_stage(1, step=2), steps=2)


def test_guidance_and_size_are_those_of_the_call(generator: SanaSprint, pipeline: SanaSprintPipeline) -> None:
    sampling = Sampling(guidance_scale=1.5, height=32, width=96)
    candidates = generator.start(generator.encode(PROMPT, sampling), SEEDS[:1])
    plain = pipeline(
        PROMPT,
        num_inference_steps=1,
        intermediate_timesteps=None,
        guidance_scale=1.5,
        height=32,
        width=96,
        use_resolution_binning=False,
        complex_human_instruction=None,
        generator=torch.Generator().manual_seed(SEEDS[0]),
    ).images
    assert np.array_equal(pixels(generator.advance(candidates, [IMAGE]).pictures), pixels(plain))


@pytest.mark.parametrize("halved", [("transformer", "vae", "text_encoder"), ("text_encoder",), ("transformer",)])
def test_each_part_may_have_its_own_dtype(tiny_generator: Path, halved: tuple[str, ...]) -> None:
    pipeline = load_pipeline(tiny_generator)
    for part in halved:
        getattr(pipeline, part).to(torch.bfloat16)
    candidate = drawn(SanaSprint(pipeline, "tiny"), SEEDS[:1], prefix_stage(2), IMAGE, steps=2)
    plain = pixels(call_plainly(pipeline, [SEEDS[0]], steps=2))
    assert np.array_equal(pixels(candidate.pictures), plain)


def state_of(pipeline: SanaSprintPipeline) -> dict[str, Any]:
    """Everything of a pipeline that somebody could change."""
    models = {part: model for part, model in pipeline.components.items() if isinstance(model, torch.nn.Module)}
    modules = [module for model in models.values() for module in model.modules()]
    weights = {(part, name): tensor for part, model in models.items() for name, tensor in model.state_dict().items()}
    return {
        "weights": {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in weights.items()},
        "gradients": [weight.requires_grad for model in models.values() for weight in model.parameters()],
        "configs": {part: str(model.config) for part, model in models.items()},
        "pipeline": dict(pipeline.config),
        "scheduler": {key: str(value) for key, value in vars(pipeline.scheduler).items()},
        "tokenizer": str(pipeline.tokenizer),
        "padding side": pipeline.tokenizer.padding_side,
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        "forwards": [vars(module).get("forward") for module in modules],
        "training": [module.training for module in modules],
    }


def test_the_caller_s_pipeline_is_left_as_it_was(tiny_generator: Path) -> None:
    pipeline = load_pipeline(tiny_generator)
    pipeline.tokenizer.padding_side = "left"
    pipeline.scheduler.set_timesteps(7, intermediate_timesteps=None)
    before = state_of(pipeline)
    drawn(SanaSprint(pipeline, "tiny"), SEEDS, prefix_stage(2), IMAGE, steps=2)
    assert state_of(pipeline) == before


def test_a_pipeline_put_together_from_parts_works(pipeline: SanaSprintPipeline) -> None:
    """It comes from no folder that could say how to call it, so SANA's own instruction goes before the prompt."""
    from_parts = SanaSprintPipeline(**pipeline.components)
    from_parts.set_progress_bar_config(disable=True)
    generator = SanaSprint(from_parts, "from parts")
    assert generator.options.complex_human_instruction is not None
    plain = from_parts(
        PROMPT,
        num_inference_steps=1,
        intermediate_timesteps=None,
        height=64,
        width=64,
        use_resolution_binning=False,
        generator=torch.Generator().manual_seed(SEEDS[0]),
    ).images
    assert np.array_equal(pixels(drawn(generator, SEEDS[:1], IMAGE).pictures), pixels(plain))


def test_the_folder_may_say_how_it_is_called(tiny_generator: Path, generator: SanaSprint) -> None:
    assert (tiny_generator / OPTIONS_FILE).is_file()
    assert generator.options.complex_human_instruction is None


@pytest.mark.parametrize("prompt", ["", "  \n\t "])
def test_an_empty_prompt_is_refused(generator: SanaSprint, prompt: str) -> None:
    with pytest.raises(InvalidRequest, match="the prompt is empty"):
        generator.encode(prompt, Sampling())


@pytest.mark.parametrize("size", [{"height": 65}, {"width": 72}, {"height": 8, "width": 8}])
def test_a_size_that_the_pipeline_refuses_is_refused(generator: SanaSprint, size: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest, match="both sides must be multiples of 32"):
        generator.encode(PROMPT, Sampling(**size))


@pytest.mark.parametrize("instructed", [False, True])
def test_a_prompt_is_refused_from_the_first_token_that_would_be_cut(
    pipeline: SanaSprintPipeline, generator: SanaSprint, instructed: bool, count_read: Callable[[Any], int]
) -> None:
    """The longest prompt that is let through reaches the text encoder whole; one word more is named."""
    if instructed:
        generator = SanaSprint(SanaSprintPipeline(**pipeline.components), "from parts")
    words = ["red"] * 400
    while True:
        try:
            read = count_read(lambda: generator.encode(" ".join(words), Sampling()))
            break
        except InvalidRequest as error:
            refused = str(error)
            words.pop()
    assert len(words) in (298, 299, 300)
    assert "would be cut: " in refused
    assert refused.count("red") == 1
    instruction = "\n".join(generator.options.complex_human_instruction or [])
    assert read == len(pipeline.tokenizer(instruction + " ".join(words)).input_ids)


@pytest.fixture
def count_read(pipeline: SanaSprintPipeline) -> Callable[[Callable[[], object]], int]:
    """How many tokens the text encoder reads, padding aside, while something is done."""

    def counted(do: Callable[[], object]) -> int:
        seen: list[Tensor] = []
        hook = pipeline.text_encoder.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
        )
        try:
            do()
        finally:
            hook.remove()
        (mask,) = seen
        return int(mask.sum())

    return counted


def test_the_fingerprint_tells_weights_apart_but_not_dtypes(tiny_generator: Path, generator: SanaSprint) -> None:
    assert SanaSprint(load_pipeline(tiny_generator, torch.bfloat16), "half").fingerprint == generator.fingerprint
    other = load_pipeline(tiny_generator)
    with torch.no_grad():
        other.transformer.proj_out.weight += 0.01
    assert SanaSprint(other, "other").fingerprint != generator.fingerprint


def test_the_architecture_is_described(generator: SanaSprint) -> None:
    assert generator.architecture.model_dump() == {
        "transformer": "SanaTransformer2DModel",
        "width": 64,
        "num_blocks": BLOCKS,
        "latent_channels": 16,
        "latent_size": 8,
        "text_width": 96,
    }
