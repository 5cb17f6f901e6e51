"""Stable Diffusion 3.5 turbo that can stop anywhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor, nn

from forejudge.errors import InvalidRequest
from forejudge.generators import load_generator
from forejudge.generators.base import SamplingParams
from forejudge.generators.sd3 import SD3Input, StableDiffusion3, StableDiffusion3Options, StableDiffusion3Split
from forejudge.types import IMAGE, prefix_stage
from tests.generators.contract import SEEDS, SplitContract, TextAdapterContract, load_reference_pipeline, pixels
from tests.support.doubles import CPU, PROMPT, load_as
from tests.support.tiny_parts import DEV, TEXT_TOKENS
from tests.support.tiny_sd3 import new_sd3, new_sd3_transformer, save_sd3

VARIANTS: dict[str, dict[str, Any]] = {
    "as SD3.5 large": {},
    "as SD3.5 medium": {"dual_attention_layers": (0, 1)},
    "as SD3": {"qk_norm": None},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest) -> SD3Transformer2DModel:
    return new_sd3_transformer(**VARIANTS[request.param])


class TestSD3Split(SplitContract):
    split = StableDiffusion3Split()
    shared = ("grid",)

    def inputs(self, transformer: SD3Transformer2DModel, count: int) -> SD3Input:
        """Images of 4 x 2 tokens at different times."""
        draw, dtype, config = torch.Generator().manual_seed(count), transformer.dtype, transformer.config
        return SD3Input(
            torch.randn(count, config.in_channels, 8, 4, generator=draw).to(dtype),
            torch.randn(count, 5, config.joint_attention_dim, generator=draw).to(dtype),
            torch.randn(count, config.pooled_projection_dim, generator=draw).to(dtype),
            torch.linspace(1000, 300, count),
        )

    def forward(self, transformer: SD3Transformer2DModel, given: SD3Input) -> Tensor:
        output: Tensor = transformer(
            hidden_states=given.latents_NCHW,
            encoder_hidden_states=given.text_NLD,
            pooled_projections=given.pooled_NP,
            timestep=given.timestep_N,
            return_dict=False,
        )[0]
        return output

    def hidden_of(self, block: nn.Module, output: tuple[Tensor | None, Tensor]) -> Tensor:
        return output[1]


OPTIONS = StableDiffusion3Options(max_sequence_length=TEXT_TOKENS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd3(tmp_path_factory.mktemp("sd3") / "generator", new_sd3())


@pytest.fixture(scope="module")
def generator(folder: Path) -> StableDiffusion3:
    return load_as(StableDiffusion3, folder)


def call_reference_pipeline(
    pipeline: StableDiffusion3Pipeline, seeds: Sequence[int], sampling: SamplingParams, **arguments: Any
) -> Any:
    """Call the pipeline itself with seeds, with no line of ours, in one batch."""
    return pipeline(
        PROMPT,
        num_inference_steps=sampling.steps,
        guidance_scale=0.0,
        height=sampling.height,
        width=sampling.width,
        num_images_per_prompt=len(seeds),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        max_sequence_length=TEXT_TOKENS,
        **arguments,
    ).images


class TestStableDiffusion3(TextAdapterContract):
    other_size = (32, 16)
    wrong_sizes = ((34, 32), (32, 33), (2, 2))
    longest_prompt = TEXT_TOKENS
    scale_argument = "joint_attention_kwargs"

    def call_reference_pipeline(
        self, pipeline: StableDiffusion3Pipeline, seeds: Sequence[int], sampling: SamplingParams, **arguments: Any
    ) -> Any:
        return call_reference_pipeline(pipeline, seeds, sampling, **arguments)

    def test_guidance_is_refused(self, generator: StableDiffusion3) -> None:
        with pytest.raises(InvalidRequest, match=r"guidance_scale = 7: .* generates without guidance, leave it out"):
            generator.encode(PROMPT, self.sampling(guidance_scale=7))
        generator.encode(PROMPT, self.sampling(guidance_scale=1))

    def test_a_prompt_longer_than_clip_reads_is_accepted(self, generator: StableDiffusion3) -> None:
        """As the pipeline draws it: the two CLIPs read the beginning, T5 reads it all."""
        words = ["red"] * 25
        assert len(words) > generator.pipeline.tokenizer_max_length
        generator.encode(" ".join(words), self.sampling())

    def test_a_size_beyond_the_positions_is_refused(self, generator: StableDiffusion3) -> None:
        generator.encode(PROMPT, self.sampling((48, 48)))
        with pytest.raises(InvalidRequest, match=r"52 x 32 pixels cannot be generated: .* generates at most 48 x 48"):
            generator.encode(PROMPT, self.sampling((32, 52)))


class TestWithoutT5:
    """A pipeline from which the largest text encoder was left out to save its memory."""

    @pytest.fixture(scope="class")
    @classmethod
    def pipeline(cls) -> StableDiffusion3Pipeline:
        pipeline = new_sd3()
        pipeline.register_modules(text_encoder_3=None, tokenizer_3=None)
        return pipeline

    def test_it_generates_as_its_pipeline_does(self, pipeline: StableDiffusion3Pipeline) -> None:
        generator = StableDiffusion3(pipeline, "without T5", OPTIONS)
        found = generator.advance(generator.start(generator.encode(PROMPT, SamplingParams()), SEEDS), [IMAGE])
        assert np.array_equal(pixels(found.images), pixels(call_reference_pipeline(pipeline, SEEDS, SamplingParams())))

    def test_a_prompt_that_clip_would_cut_is_refused(self, pipeline: StableDiffusion3Pipeline) -> None:
        generator = StableDiffusion3(pipeline, "without T5", OPTIONS)
        with pytest.raises(InvalidRequest, match="27 tokens and the text encoder takes 20; this would be cut: 'red"):
            generator.encode("red " * 25, SamplingParams())


def test_the_shift_is_that_of_the_call() -> None:
    """A scheduler that shifts by the size of the image."""
    pipeline, sampling = new_sd3(DEV), SamplingParams(steps=3, height=16, width=32)
    generator = StableDiffusion3(pipeline, "shifted", OPTIONS)
    start = generator.start(generator.encode(PROMPT, sampling), SEEDS)
    found = generator.advance(generator.advance(start, [prefix_stage(3)]), [IMAGE])
    assert np.array_equal(pixels(found.images), pixels(call_reference_pipeline(pipeline, SEEDS, sampling)))


def test_other_ways_to_step_are_refused() -> None:
    pipeline = new_sd3()
    pipeline.scheduler = FlowMatchHeunDiscreteScheduler()
    with pytest.raises(InvalidRequest, match="scheduler FlowMatchHeunDiscreteScheduler is not supported"):
        StableDiffusion3(pipeline, "heun")


def test_in_bfloat16_a_folder_is_loaded_as_diffusers_loads_it(folder: Path) -> None:
    """Its table of positions is a buffer that lies among the weights."""
    pipeline = load_reference_pipeline(folder, torch.bfloat16)
    generator = load_generator(str(folder), CPU, torch.bfloat16)
    found = generator.advance(generator.start(generator.encode(PROMPT, SamplingParams()), SEEDS), [IMAGE])
    assert np.array_equal(pixels(found.images), pixels(call_reference_pipeline(pipeline, SEEDS, SamplingParams())))


def test_the_architecture_is_described(generator: StableDiffusion3) -> None:
    assert generator.architecture.model_dump() == {
        "transformer": "SD3Transformer2DModel",
        "width": 32,
        "num_blocks": 3,
        "latent_channels": 4,
        "latent_size": 8,
        "text_width": 32,
    }
