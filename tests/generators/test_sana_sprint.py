"""SANA-Sprint that can stop anywhere, and what its own call takes besides."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import SanaSprintPipeline, SanaTransformer2DModel
from torch import Tensor

from forejudge.errors import InvalidRequest
from forejudge.generators.base import OPTIONS_FILE, SamplingParams
from forejudge.generators.sana_sprint import SanaInput, SanaSplit, SanaSprint
from forejudge.types import IMAGE, prefix_stage
from tests.generators.contract import (
    SEEDS,
    AdapterContract,
    PaddingContract,
    SplitContract,
    load_reference_pipeline,
    pixels,
)
from tests.support.doubles import PROMPT, call_reference_pipeline, load_as

VARIANTS: dict[str, dict[str, Any]] = {
    "as the miniature": {"interpolation_scale": 1, "qk_norm": "rms_norm_across_heads"},
    "without query and key norms": {"qk_norm": None},
    "with patches of 2": {"patch_size": 2, "qk_norm": "rms_norm_across_heads"},
    "narrow and tall": {"sample_size": 4, "interpolation_scale": 1, "qk_norm": "rms_norm_across_heads"},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest) -> SanaTransformer2DModel:
    """An untrained transformer whose output depends on all that goes in."""
    torch.manual_seed(0)
    options = {"sample_size": 8, "guidance_embeds": True, "timestep_scale": 1000.0, **VARIANTS[request.param]}
    return SanaTransformer2DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=2,
        attention_head_dim=32,
        num_layers=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=32,
        cross_attention_dim=64,
        caption_channels=24,
        **options,
    ).eval()


class TestSanaSplit(SplitContract):
    split = SanaSplit()
    shared = ("grid",)

    def inputs(self, transformer: SanaTransformer2DModel, count: int) -> SanaInput:
        """A batch whose texts have different lengths, padded on the right, at different times."""
        draw, dtype = torch.Generator().manual_seed(count), transformer.dtype
        lengths = torch.arange(3, 3 + 4 * count, 4)
        return SanaInput(
            torch.randn(count, 16, 8, 4, generator=draw).to(dtype),
            torch.randn(count, 20, 24, generator=draw).to(dtype),
            (torch.arange(20) < lengths[:, None]).long(),
            torch.linspace(1, 0.3, count),
            torch.full((count,), 0.45).to(dtype),
        )

    def forward(self, transformer: SanaTransformer2DModel, given: SanaInput) -> Tensor:
        output: Tensor = transformer(
            given.latents_NCHW,
            encoder_hidden_states=given.text_NLD,
            encoder_attention_mask=given.mask_NL,
            timestep=given.timestep_N,
            guidance=given.guidance_N,
            return_dict=False,
        )[0]
        return output


@pytest.fixture(scope="module")
def folder(tiny_generator: Path) -> Path:
    return tiny_generator


@pytest.fixture(scope="module")
def generator(folder: Path) -> SanaSprint:
    return load_as(SanaSprint, folder)


class TestSanaSprint(AdapterContract, PaddingContract):
    other_size = (32, 96)
    wrong_sizes = ((65, 64), (64, 72), (8, 8))
    longest_prompt = 300
    scale_argument = "attention_kwargs"

    def call_reference_pipeline(
        self, pipeline: SanaSprintPipeline, seeds: Sequence[int], sampling: SamplingParams, **arguments: Any
    ) -> Any:
        sizes = {"height": sampling.height or 64, "width": sampling.width or 64}
        return call_reference_pipeline(pipeline, seeds, sampling.steps, **sizes, **arguments)

    def test_guidance_is_that_of_the_call(self, generator: SanaSprint, pipeline: SanaSprintPipeline) -> None:
        candidate = self.generated(generator, SEEDS[:1], IMAGE, guidance_scale=1.5)
        plain = call_reference_pipeline(pipeline, SEEDS[:1], guidance_scale=1.5)
        assert np.array_equal(pixels(candidate.images), pixels(plain))

    @pytest.mark.parametrize("halved", [("text_encoder",), ("transformer",)])
    def test_each_part_may_have_its_own_dtype(self, pipeline: SanaSprintPipeline, halved: tuple[str, ...]) -> None:
        for part in halved:
            getattr(pipeline, part).to(torch.bfloat16)
        candidate = self.generated(SanaSprint(pipeline, "tiny"), SEEDS[:1], prefix_stage(2), IMAGE, steps=2)
        plain = pixels(call_reference_pipeline(pipeline, SEEDS[:1], steps=2))
        assert np.array_equal(pixels(candidate.images), plain)

    def test_a_pipeline_put_together_from_parts_works(self, pipeline: SanaSprintPipeline) -> None:
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
        assert np.array_equal(pixels(self.generated(generator, SEEDS[:1], IMAGE).images), pixels(plain))


def test_the_folder_may_say_how_it_is_called(folder: Path, generator: SanaSprint) -> None:
    assert (folder / OPTIONS_FILE).is_file()
    assert generator.options.complex_human_instruction is None


def test_a_prompt_after_an_instruction_is_read_to_its_last_token(
    folder: Path, count_read: Callable[[SanaSprintPipeline, Callable[[], Any]], int]
) -> None:
    """The longest prompt that is let through reaches the text encoder whole; one word more is named."""
    pipeline = SanaSprintPipeline(**load_reference_pipeline(folder).components)
    generator = SanaSprint(pipeline, "from parts")
    words = ["red"] * 400
    while True:
        try:
            read = count_read(pipeline, lambda: generator.encode(" ".join(words), SamplingParams()))
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
def count_read() -> Callable[[SanaSprintPipeline, Callable[[], object]], int]:
    """How many tokens a pipeline's text encoder reads, padding aside, while something is done."""

    def counted(pipeline: SanaSprintPipeline, do: Callable[[], object]) -> int:
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


def test_the_architecture_is_described(generator: SanaSprint) -> None:
    assert generator.architecture.model_dump() == {
        "transformer": "SanaTransformer2DModel",
        "width": 64,
        "num_blocks": 4,
        "latent_channels": 16,
        "latent_size": 8,
        "text_width": 96,
    }
