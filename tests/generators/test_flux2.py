"""FLUX.2-klein that can stop anywhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel
from diffusers.models.transformers.transformer_flux2 import Flux2SingleTransformerBlock
from torch import Tensor, nn

from forejudge.errors import InvalidRequest
from forejudge.generators.base import SamplingParams
from forejudge.generators.flux2 import Flux2Input, Flux2Klein, Flux2Split
from tests.generators.contract import AdapterContract, SplitContract
from tests.support.doubles import PROMPT, load_as
from tests.support.tiny_flux import new_flux2, new_flux2_transformer, save_flux2
from tests.support.tiny_parts import TEXT_TOKENS

VARIANTS: dict[str, dict[str, Any]] = {
    "as FLUX.2-klein": {},
    "guidance embedded, but not given": {"guidance_embeds": True},
    "no single blocks": {"num_single_layers": 0},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest) -> Flux2Transformer2DModel:
    return new_flux2_transformer(**VARIANTS[request.param])


class TestFlux2Split(SplitContract):
    split = Flux2Split()
    shared = ("rotary",)

    def inputs(self, transformer: Flux2Transformer2DModel, count: int) -> Flux2Input:
        """Images of 4 x 2 tokens at different times."""
        draw, dtype, config = torch.Generator().manual_seed(count), transformer.dtype, transformer.config
        one = torch.arange(1)
        return Flux2Input(
            torch.randn(count, 8, config.in_channels, generator=draw).to(dtype),
            torch.randn(count, 5, config.joint_attention_dim, generator=draw).to(dtype),
            torch.linspace(1, 0.3, count).to(dtype),
            torch.cartesian_prod(one, one, one, torch.arange(5)),
            torch.cartesian_prod(one, torch.arange(4), torch.arange(2), one),
        )

    def forward(self, transformer: Flux2Transformer2DModel, given: Flux2Input) -> Tensor:
        output: Tensor = transformer(
            hidden_states=given.latents_NTC,
            timestep=given.timestep_N,
            guidance=None,
            encoder_hidden_states=given.text_NLD,
            txt_ids=given.text_ids_L4,
            img_ids=given.image_ids_T4,
            return_dict=False,
        )[0]
        return output

    def blocks(self, transformer: Flux2Transformer2DModel) -> list[nn.Module]:
        return [*transformer.transformer_blocks, *transformer.single_transformer_blocks]

    def hidden_of(self, block: nn.Module, output: Any) -> Tensor:
        if isinstance(block, Flux2SingleTransformerBlock):
            return output[:, 5:]
        return output[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_flux2(tmp_path_factory.mktemp("flux2") / "generator", new_flux2())


@pytest.fixture(scope="module")
def generator(folder: Path) -> Flux2Klein:
    return load_as(Flux2Klein, folder)


class TestFlux2Klein(AdapterContract):
    size = (32, 32)
    other_size = (32, 16)
    wrong_sizes = ((34, 32), (32, 33), (2, 2))
    longest_prompt = TEXT_TOKENS
    scale_argument = "attention_kwargs"

    def call_reference_pipeline(
        self, pipeline: Flux2KleinPipeline, seeds: Sequence[int], sampling: SamplingParams, **arguments: Any
    ) -> Any:
        return pipeline(
            prompt=PROMPT,
            num_inference_steps=sampling.steps,
            guidance_scale=1.0,
            height=sampling.height,
            width=sampling.width,
            num_images_per_prompt=len(seeds),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            max_sequence_length=TEXT_TOKENS,
            **arguments,
        ).images

    def test_guidance_is_refused(self, generator: Flux2Klein) -> None:
        with pytest.raises(InvalidRequest, match=r"guidance_scale = 4: .* generates without guidance, leave it out"):
            generator.encode(PROMPT, self.sampling(guidance_scale=4))
        generator.encode(PROMPT, self.sampling(guidance_scale=1))


def test_a_pipeline_that_is_not_distilled_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"base is not distilled .* runs its transformer twice a step"):
        Flux2Klein(new_flux2(is_distilled=False), "base")


def test_a_prompt_may_hold_words_of_the_chat_template(generator: Flux2Klein) -> None:
    """They are told apart from the template's own."""
    with pytest.raises(InvalidRequest, match=r"would be cut: '(user )+assistant'"):
        generator.encode("user " * 10 + "assistant", SamplingParams())


def test_the_architecture_is_described(generator: Flux2Klein) -> None:
    assert generator.architecture.model_dump() == {
        "transformer": "Flux2Transformer2DModel",
        "width": 32,
        "num_blocks": 4,
        "latent_channels": 4,
        "latent_size": 64,
        "text_width": 48,
    }
