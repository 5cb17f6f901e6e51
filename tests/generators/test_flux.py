"""FLUX.1 that can stop anywhere, with guidance and without."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchHeunDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn

from forejudge.errors import InvalidRequest
from forejudge.generators.base import SamplingParams
from forejudge.generators.flux import Flux, FluxInput, FluxOptions, FluxSplit
from forejudge.types import IMAGE, latent_stage, prefix_stage
from tests.generators.contract import SEEDS, SplitContract, TextAdapterContract, pixels
from tests.support.doubles import PROMPT, load_as
from tests.support.tiny_flux import new_flux, new_flux_transformer, save_flux
from tests.support.tiny_parts import DEV, TEXT_TOKENS

VARIANTS: dict[str, dict[str, Any]] = {
    "without guidance": {},
    "with guidance": {"guidance_embeds": True},
    "no single blocks": {"num_single_layers": 0},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest) -> FluxTransformer2DModel:
    return new_flux_transformer(**VARIANTS[request.param])


class TestFluxSplit(SplitContract):
    split = FluxSplit()
    shared = ("rotary",)

    def inputs(self, transformer: FluxTransformer2DModel, count: int) -> FluxInput:
        """Images of 4 x 2 tokens at different times."""
        draw, dtype, config = torch.Generator().manual_seed(count), transformer.dtype, transformer.config
        places = torch.cartesian_prod(torch.zeros(1), torch.arange(4.0), torch.arange(2.0))
        return FluxInput(
            torch.randn(count, 8, config.in_channels, generator=draw).to(dtype),
            torch.randn(count, 5, config.joint_attention_dim, generator=draw).to(dtype),
            torch.randn(count, config.pooled_projection_dim, generator=draw).to(dtype),
            torch.linspace(1, 0.3, count).to(dtype),
            torch.linspace(2, 5, count) if config.guidance_embeds else None,
            torch.zeros(5, 3).to(dtype),
            places.to(dtype),
        )

    def forward(self, transformer: FluxTransformer2DModel, given: FluxInput) -> Tensor:
        output: Tensor = transformer(
            hidden_states=given.latents_NTC,
            timestep=given.timestep_N,
            guidance=given.guidance_N,
            pooled_projections=given.pooled_NP,
            encoder_hidden_states=given.text_NLD,
            txt_ids=given.text_ids_L3,
            img_ids=given.image_ids_T3,
            return_dict=False,
        )[0]
        return output

    def blocks(self, transformer: FluxTransformer2DModel) -> list[nn.Module]:
        return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]

    def hidden_of(self, block: nn.Module, output: tuple[Tensor, Tensor]) -> Tensor:
        return output[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_flux(tmp_path_factory.mktemp("flux") / "generator", new_flux())


@pytest.fixture(scope="module")
def generator(folder: Path) -> Flux:
    return load_as(Flux, folder)


def call_reference_pipeline(
    pipeline: FluxPipeline, seeds: Sequence[int], sampling: SamplingParams, **arguments: Any
) -> Any:
    """Call the pipeline itself with seeds, with no line of ours, in one batch."""
    if sampling.guidance_scale is not None:
        arguments["guidance_scale"] = sampling.guidance_scale
    return pipeline(
        PROMPT,
        num_inference_steps=sampling.steps,
        height=sampling.height,
        width=sampling.width,
        num_images_per_prompt=len(seeds),
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        max_sequence_length=TEXT_TOKENS,
        **arguments,
    ).images


class TestFluxSchnell(TextAdapterContract):
    size = (32, 32)
    other_size = (32, 16)
    wrong_sizes = ((34, 32), (32, 33), (2, 2))
    longest_prompt = TEXT_TOKENS
    scale_argument = "joint_attention_kwargs"

    def call_reference_pipeline(
        self, pipeline: FluxPipeline, seeds: Sequence[int], sampling: SamplingParams, **arguments: Any
    ) -> Any:
        return call_reference_pipeline(pipeline, seeds, sampling, **arguments)

    def reference_latents(self, pipeline: FluxPipeline, seeds: Sequence[int], sampling: SamplingParams) -> Tensor:
        packed_NTC = call_reference_pipeline(pipeline, seeds, sampling, output_type="latent")
        return packed_NTC.view(-1, 8, 8, 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(-1, 4, 16, 16)

    def test_guidance_is_refused(self, generator: Flux) -> None:
        with pytest.raises(InvalidRequest, match=r"guidance_scale = 3\.5: .* generates without guidance, leave it out"):
            generator.encode(PROMPT, self.sampling(guidance_scale=3.5))
        assert generator.encode(PROMPT, self.sampling(guidance_scale=0)).guidance_N is None

    def test_a_prompt_longer_than_clip_reads_is_accepted(self, generator: Flux) -> None:
        """As the pipeline draws it: CLIP's pooled text is of the beginning, T5 reads it all."""
        words = ["red"] * 25
        assert len(words) > generator.pipeline.tokenizer_max_length
        generator.encode(" ".join(words), self.sampling())


class TestFluxDev:
    """A transformer with guidance embedded, and a scheduler that shifts by the size of the image."""

    @pytest.fixture(scope="class")
    @classmethod
    def pipeline(cls) -> FluxPipeline:
        return new_flux(DEV, guidance_embeds=True)

    @pytest.mark.parametrize("guidance_scale", [None, 1.5])
    def test_guidance_and_shift_are_those_of_the_call(
        self, pipeline: FluxPipeline, guidance_scale: float | None
    ) -> None:
        generator = Flux(pipeline, "dev", FluxOptions(max_sequence_length=TEXT_TOKENS))
        sampling = SamplingParams(steps=3, guidance_scale=guidance_scale, height=16, width=32)
        start = generator.start(generator.encode(PROMPT, sampling), SEEDS)
        found = generator.advance(generator.advance(start, [prefix_stage(3)]), [IMAGE])
        assert np.array_equal(pixels(found.images), pixels(call_reference_pipeline(pipeline, SEEDS, sampling)))

    def test_as_many_text_tokens_are_read_as_it_was_trained_with(self, pipeline: FluxPipeline) -> None:
        small = SamplingParams(height=16, width=16)
        assert Flux(pipeline, "dev").encode(PROMPT, small).text_NLD.shape[1] == 512
        assert Flux(new_flux(), "schnell").encode(PROMPT, small).text_NLD.shape[1] == 256


def test_the_latent_of_an_earlier_step_is_the_clean_one_that_it_predicts(generator: Flux) -> None:
    """Noisy latents are (1 - sigma) clean + sigma noise, and the transformer predicts noise - clean."""
    start = generator.start(generator.encode(PROMPT, SamplingParams(steps=4, height=32, width=32)), SEEDS)
    pred_original_sample_NCHW = generator.advance(start, [latent_stage()]).tensor(latent_stage())
    state = generator.advance(start, [prefix_stage(0, step=1)]).state
    noise_NTC = start.state.latents
    following_NTC = state.conditioning.schedule.sigmas[1] * noise_NTC
    packed_NTC = generator.pipeline._pack_latents(pred_original_sample_NCHW, 3, 4, 16, 16)
    torch.testing.assert_close(state.latents, following_NTC + (1 - 0.75) * packed_NTC)


def test_other_ways_to_step_are_refused() -> None:
    pipeline = new_flux()
    pipeline.scheduler = FlowMatchHeunDiscreteScheduler()
    with pytest.raises(InvalidRequest, match="scheduler FlowMatchHeunDiscreteScheduler is not supported"):
        Flux(pipeline, "heun")
    pipeline = new_flux(type(DEV)(stochastic_sampling=True))
    with pytest.raises(InvalidRequest, match="set stochastic_sampling to false"):
        Flux(pipeline, "stochastic")


def test_the_architecture_is_described(generator: Flux) -> None:
    assert generator.architecture.model_dump() == {
        "transformer": "FluxTransformer2DModel",
        "width": 32,
        "num_blocks": 4,
        "latent_channels": 4,
        "latent_size": 64,
        "text_width": 32,
    }
