"""Options of SANA-Sprint change its images as the arguments of the pipeline's own call do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, SanaSprintPipeline, SanaTransformer2DModel

from forejudge.errors import InvalidRequest
from forejudge.generators import as_generator, load_generator
from forejudge.generators.base import SamplingParams
from forejudge.generators.stepwise import StepwiseGenerator
from forejudge.types import IMAGE, NOISE, prefix_stage
from tests.support.doubles import CPU, PROMPT, call_reference_pipeline, load_pipeline

SEED = 11


@pytest.fixture
def pipeline(tiny_generator: Path) -> SanaSprintPipeline:
    return load_pipeline(tiny_generator)


def generate(pipeline: SanaSprintPipeline, options: dict[str, Any], **sampling: Any) -> np.ndarray:
    generator = as_generator(pipeline, "tiny", options)
    candidate = generator.start(generator.encode(PROMPT, SamplingParams(**sampling)), (SEED,))
    return np.asarray(generator.advance(candidate, [prefix_stage(1), IMAGE]).images[0])


def plain(pipeline: SanaSprintPipeline, steps: int = 1, **changes: Any) -> np.ndarray:
    return np.asarray(call_reference_pipeline(pipeline, [SEED], steps, **changes)[0])


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 7.5])
def test_guidance(pipeline: SanaSprintPipeline, guidance_scale: float) -> None:
    found = generate(pipeline, {}, guidance_scale=guidance_scale)
    assert np.array_equal(found, plain(pipeline, guidance_scale=guidance_scale))
    assert not np.array_equal(found, generate(pipeline, {}))


def test_the_first_time(pipeline: SanaSprintPipeline) -> None:
    found = generate(pipeline, {"max_timesteps": 1.2})
    assert np.array_equal(found, plain(pipeline, max_timesteps=1.2))
    assert not np.array_equal(found, generate(pipeline, {}))


@pytest.mark.parametrize("steps", range(1, 9))
def test_every_number_of_steps(pipeline: SanaSprintPipeline, steps: int) -> None:
    """The second of two steps starts where the option says; three and more are spaced evenly, as in the pipeline."""
    intermediate = 1.3 if steps == 2 else None
    found = generate(pipeline, {"intermediate_timesteps": 1.3}, steps=steps)
    assert np.array_equal(found, plain(pipeline, steps, intermediate_timesteps=intermediate))


def test_by_itself_the_second_step_starts_where_the_pipeline_starts_it(pipeline: SanaSprintPipeline) -> None:
    from_parts = SanaSprintPipeline(**pipeline.components)
    found = generate(from_parts, {"complex_human_instruction": None}, steps=2)
    assert np.array_equal(found, plain(pipeline, 2, intermediate_timesteps=1.3))


def test_the_instruction(pipeline: SanaSprintPipeline) -> None:
    instruction = ["Given a user prompt,", "a photo of a star:"]
    found = generate(pipeline, {"complex_human_instruction": instruction})
    assert np.array_equal(found, plain(pipeline, complex_human_instruction=instruction))
    assert not np.array_equal(found, generate(pipeline, {}))


@pytest.mark.parametrize("size", [{"height": 96, "width": 32}, {"height": 32, "width": 128}])
def test_other_sizes_of_a_model_without_bins(pipeline: SanaSprintPipeline, size: dict[str, int]) -> None:
    assert np.array_equal(generate(pipeline, {}, **size), plain(pipeline, **size))


@pytest.fixture(scope="module")
def of_1024_pixels(tiny_generator: Path) -> SanaSprintPipeline:
    """An untrained one of the published latent size, for which the pipeline has bins."""
    torch.manual_seed(2)
    pipeline = load_pipeline(tiny_generator)
    config = {**pipeline.transformer.config, "sample_size": 32, "num_layers": 2}
    pipeline.transformer = SanaTransformer2DModel.from_config(config).eval()
    pipeline.vae = autoencoder((16, 16, 16, 16, 16, 16))
    return SanaSprintPipeline(**pipeline.components)  # which reads the autoencoder's factor when it is made


def autoencoder(channels: tuple[int, ...]) -> AutoencoderDC:
    levels = len(channels)
    return AutoencoderDC(
        latent_channels=16,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        encoder_layers_per_block=(0,) + (1,) * (levels - 1),
        decoder_layers_per_block=(1,) * levels,
        encoder_qkv_multiscales=((),) * levels,
        decoder_qkv_multiscales=((),) * levels,
        downsample_block_type="Conv",
        upsample_block_type="interpolate",
        scaling_factor=0.4,
    ).eval()


@pytest.mark.parametrize(
    ("binned", "height", "width"),
    [
        pytest.param(True, 600, 1000, marks=pytest.mark.slow),
        pytest.param(True, 512, 512, marks=pytest.mark.slow),
        (False, 512, 768),
    ],
)
def test_sizes_of_a_model_with_bins(of_1024_pixels: SanaSprintPipeline, binned: bool, height: int, width: int) -> None:
    options = {"complex_human_instruction": None, "use_resolution_binning": binned}
    found = generate(of_1024_pixels, options, height=height, width=width)
    assert found.shape == (height, width, 3)
    expected = plain(of_1024_pixels, use_resolution_binning=binned, height=height, width=width)
    assert np.array_equal(found, expected)


def test_without_bins_a_size_must_fit_the_latents(of_1024_pixels: SanaSprintPipeline) -> None:
    with pytest.raises(InvalidRequest, match="1000 x 600 pixels cannot be generated"):
        generate(of_1024_pixels, {"use_resolution_binning": False}, height=600, width=1000)


def test_an_autoencoder_that_was_swapped_in(pipeline: SanaSprintPipeline) -> None:
    """Such as DC-AE-Lite, whose decoder is another one."""
    torch.manual_seed(3)
    before = generate(pipeline, {})
    pipeline.vae = autoencoder((16, 16, 16, 16))
    found = generate(pipeline, {})
    assert np.array_equal(found, plain(pipeline))
    assert not np.array_equal(found, before)


def test_tiling_and_slicing_of_the_autoencoder(pipeline: SanaSprintPipeline) -> None:
    whole = generate(pipeline, {}, height=128, width=128)
    tiles = {"tile_sample_min_height": 64, "tile_sample_min_width": 64}
    pipeline.vae.enable_tiling(**tiles, tile_sample_stride_height=48, tile_sample_stride_width=48)
    pipeline.vae.enable_slicing()
    found = generate(pipeline, {}, height=128, width=128)
    assert np.array_equal(found, plain(pipeline, height=128, width=128))
    assert not np.array_equal(found, whole)


def test_attention_without_gemma_s_cap(pipeline: SanaSprintPipeline) -> None:
    """The very weights in a model of its own: the pipeline's stays capped."""
    capped = generate(pipeline, {})
    for layer in pipeline.text_encoder.layers:
        layer.self_attn.q_proj.weight.data *= 30  # for scores so high that a cap of 50 matters
    capped, uncapped = generate(pipeline, {}), generate(pipeline, {"gemma_softcap": False})
    assert not np.array_equal(capped, uncapped)
    assert np.array_equal(generate(pipeline, {}), capped)
    for layer in pipeline.text_encoder.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert np.array_equal(plain(pipeline), uncapped)


def test_noise_may_be_given(pipeline: SanaSprintPipeline) -> None:
    generator = as_generator(pipeline, "tiny")
    assert isinstance(generator, StepwiseGenerator)
    conditioning = generator.encode(PROMPT, SamplingParams())
    noise_NCHW = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(5))
    candidates = generator.advance(generator.start(conditioning, (0, 1), noise_NCHW), [NOISE, IMAGE])
    plainly = call_reference_pipeline(pipeline, [0, 1], latents=noise_NCHW)
    for found, expected in zip(candidates.images, plainly, strict=True):
        assert np.array_equal(np.asarray(found), np.asarray(expected))


def test_options_follow_the_name(tiny_generator: Path) -> None:
    name = f"{tiny_generator},max_timesteps=1.2,use_resolution_binning=false"
    generator = load_generator(name, CPU, torch.float32)
    assert generator.name == name
    found = generator.options.model_dump()
    assert (found["max_timesteps"], found["use_resolution_binning"]) == (1.2, False)
    assert found["complex_human_instruction"] is None  # as its folder says


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            "max_timestep=1.2",
            "generator option max_timestep = 1.2: .*options are: complex_human_instruction, max_timesteps",
        ),
        ("max_timesteps=high", "generator option max_timesteps = .high.: .*a valid number"),
        ("max_timesteps=9", "generator option max_timesteps = 9: .*less than or equal to 1.57"),
        ("max_timesteps", "'max_timesteps' is no option, expected NAME=VALUE"),
    ],
)
def test_options_that_cannot_be_are_refused(tiny_generator: Path, options: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        load_generator(f"{tiny_generator},{options}", CPU, torch.float32)
