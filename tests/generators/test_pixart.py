"""PixArt that can stop anywhere: in the one step of DMD, and in the steps of latent consistency."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, LCMScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from huggingface_hub import constants
from torch import Tensor

from forejudge import BestOfN
from forejudge.errors import InvalidRequest
from forejudge.generators import KNOWN_MODELS, load_generator
from forejudge.generators.base import Generator, SamplingParams
from forejudge.generators.pixart import PixArt, PixArtInput, PixArtOptions, PixArtSplit
from forejudge.types import IMAGE, NOISE, Candidates, Stage, latent_stage, prefix_stage
from tests.generators.contract import SEEDS, GeneratorContract, PaddingContract, SplitContract, pixels
from tests.support.doubles import CPU, PROMPT, load_as
from tests.support.hub_server import hub_server
from tests.support.tiny import save_tiny_verifier
from tests.support.tiny_pixart import (
    BETAS,
    BLOCKS,
    LCM,
    call_reference_pipeline,
    new_pipeline,
    new_transformer,
    save_tiny_pixart,
)

VARIANTS: dict[str, dict[str, Any]] = {
    "as published for 512 px": {"use_additional_conditions": False},
    "with size conditions": {"use_additional_conditions": True},
    "with patches of 1": {"patch_size": 1},
    "without a projection of the text": {"caption_channels": None},
    "made for another size": {"sample_size": 4},
}


@pytest.fixture(scope="module", params=list(VARIANTS))
def transformer(request: pytest.FixtureRequest) -> PixArtTransformer2DModel:
    torch.manual_seed(0)
    return new_transformer(**VARIANTS[request.param])


class TestPixArtSplit(SplitContract):
    split = PixArtSplit()
    shared = ("grid",)

    def inputs(self, transformer: PixArtTransformer2DModel, count: int) -> PixArtInput:
        """A batch whose texts have different lengths, padded on the right, at different times."""
        draw, dtype = torch.Generator().manual_seed(count), transformer.dtype
        text_width = transformer.config.caption_channels or transformer.config.cross_attention_dim
        given = PixArtInput(
            torch.randn(count, 4, 8, 4, generator=draw).to(dtype),
            torch.randn(count, 20, text_width, generator=draw).to(dtype),
            (torch.arange(20) < torch.arange(3, 3 + 4 * count, 4)[:, None]).long(),
            torch.linspace(400, 900, count).long(),
        )
        if not transformer.use_additional_conditions:
            return given
        sizes = torch.tensor([[64.0, 32.0]] * count, dtype=dtype)
        return replace(given, resolution_N2=sizes, aspect_ratio_N1=torch.full((count, 1), 2.0, dtype=dtype))

    def forward(self, transformer: PixArtTransformer2DModel, given: PixArtInput) -> Tensor:
        output: Tensor = transformer(
            given.latents_NCHW,
            encoder_hidden_states=given.text_NLD,
            encoder_attention_mask=given.mask_NL,
            timestep=given.timestep_N,
            added_cond_kwargs={"resolution": given.resolution_N2, "aspect_ratio": given.aspect_ratio_N1},
            return_dict=False,
        )[0]
        return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pixart(tmp_path_factory.mktemp("pixart") / "generator")


@pytest.fixture(scope="module")
def generator(folder: Path) -> PixArt:
    return load_as(PixArt, folder)


@pytest.fixture(scope="module")
def pipeline() -> PixArtAlphaPipeline:
    return new_pipeline()


def generate(generator: PixArt, seeds: tuple[int, ...], *stops: Stage, **sampling: Any) -> Candidates:
    """Candidates taken to the last stop, in one call of `advance` for each."""
    candidates = generator.start(generator.encode(PROMPT, SamplingParams(**sampling)), seeds)
    for stop in stops:
        candidates = generator.advance(candidates, [stop])
    return candidates


class PixArtContract(GeneratorContract, PaddingContract):
    other_size = (32, 96)
    wrong_sizes = ((65, 64), (64, 72), (8, 8))
    longest_prompt = 119  # and an end mark

    def call_reference_pipeline(
        self, pipeline: PixArtAlphaPipeline, seeds: Sequence[int], sampling: SamplingParams, **arguments: Any
    ) -> Any:
        sizes = {"height": sampling.height, "width": sampling.width}
        return call_reference_pipeline(pipeline, seeds, sampling.steps, **sizes, **arguments)


class TestDMD(PixArtContract):
    @pytest.fixture
    def steps(self) -> int:
        return 1

    @pytest.mark.parametrize("begun", [prefix_stage(2)], ids=str)
    def test_a_candidate_of_one_step_goes_on_in_two(self, generator: Generator, pipeline: Any, begun: Stage) -> None:
        candidates = self.generated(generator, SEEDS, begun)
        with pytest.raises(InvalidRequest, match=r"takes one step, not 2: leave out --steps"):
            generator.with_steps(candidates, 2)


class TestLatentConsistency(PixArtContract):
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return save_tiny_pixart(tmp_path_factory.mktemp("pixart-lcm") / "generator", scheduler=LCM)

    @pytest.fixture(scope="class")
    @classmethod
    def generator(cls, folder: Path) -> Any:
        return load_generator(str(folder), CPU, torch.float32)


def test_the_clean_latent_is_what_dmd_takes_for_it(generator: PixArt, pipeline: PixArtAlphaPipeline) -> None:
    """x0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t) of pure noise at t = 400, eps the first half of the output."""
    seen: list[torch.Tensor] = []
    hook = pipeline.transformer.register_forward_hook(lambda *call: seen.append(call[-1][0]))
    call_reference_pipeline(pipeline, SEEDS)
    hook.remove()
    noise_NCHW = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in SEEDS])
    kept = pipeline.scheduler.alphas_cumprod[400]
    expected = (noise_NCHW - (1 - kept).sqrt() * seen[0][:, :4]) / kept.sqrt()
    torch.testing.assert_close(generate(generator, SEEDS, latent_stage()).tensor(latent_stage()), expected)


def test_other_things_than_noise_may_be_predicted() -> None:
    """As YOSO does: velocities, in one step of an LCMScheduler."""
    pipeline = new_pipeline(LCMScheduler(prediction_type="v_prediction", **BETAS), out_channels=4)
    found = generate(PixArt(pipeline, "tiny"), SEEDS, IMAGE)
    assert np.array_equal(pixels(found.images), pixels(call_reference_pipeline(pipeline, SEEDS)))


def test_noise_may_be_given(generator: PixArt) -> None:
    conditioning = generator.encode(PROMPT, SamplingParams())
    noise_NCHW = generator.advance(generator.start(conditioning, SEEDS), [NOISE]).tensor(NOISE)
    given = generator.advance(generator.start(conditioning, (0, 1, 2), noise_NCHW), [IMAGE])
    assert np.array_equal(pixels(given.images), pixels(generate(generator, SEEDS, IMAGE).images))


@pytest.mark.parametrize("size", [{"height": 320, "width": 200}, {}, {"width": 150, "height": 600}])
def test_the_nearest_size_of_the_training_is_generated(size: dict[str, int]) -> None:
    pipeline = new_pipeline(sample_size=32)
    candidates = generate(PixArt(pipeline, "tiny"), SEEDS[:1], IMAGE, **size)
    plain = call_reference_pipeline(pipeline, SEEDS[:1], use_resolution_binning=True, **size)
    assert candidates.images[0].size == (size.get("width", 256), size.get("height", 256))
    assert np.array_equal(pixels(candidates.images), pixels(plain))


@pytest.mark.parametrize("size", [{"height": 64, "width": 112}, {"height": 48, "width": 48}])
def test_a_model_of_1024_pixels_is_told_the_size(size: dict[str, int]) -> None:
    pipeline = new_pipeline(sample_size=128)
    generator = PixArt(pipeline, "tiny", PixArtOptions(use_resolution_binning=False))
    found = generate(generator, SEEDS, prefix_stage(1), IMAGE, **size)
    assert np.array_equal(pixels(found.images), pixels(call_reference_pipeline(pipeline, SEEDS, **size)))


@pytest.mark.parametrize("scale", [None, 0, 1])
def test_no_guidance_may_be_said_in_three_ways(generator: PixArt, scale: float | None) -> None:
    generator.encode(PROMPT, SamplingParams(guidance_scale=scale))


@pytest.mark.parametrize("sampling", [{"guidance_scale": 4.5}, {"lora_scale": 0.5}])
def test_what_it_cannot_do_is_refused(generator: PixArt, sampling: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(sampling))} = .*: PixArt"):
        generator.encode(PROMPT, SamplingParams(**sampling))


def test_steps_that_the_scheduler_does_not_take_are_refused(generator: PixArt) -> None:
    with pytest.raises(InvalidRequest, match=r"PixArt with a DDPMScheduler \(DMD\) takes one step, not 2"):
        generator.encode(PROMPT, SamplingParams(steps=2))
    with pytest.raises(InvalidRequest, match="at most 50 steps, not 51"):
        PixArt(new_pipeline(LCM), "tiny").encode(PROMPT, SamplingParams(steps=51))


def test_a_scheduler_of_many_steps_is_refused() -> None:
    pipeline = new_pipeline()
    pipeline.scheduler = DPMSolverMultistepScheduler(**BETAS)
    with pytest.raises(InvalidRequest, match="PixArt with a DPMSolverMultistepScheduler takes many steps"):
        PixArt(pipeline, "tiny")


def test_prompts_are_read_as_the_pipeline_does(generator: PixArt) -> None:
    """In lower case, without outer blanks."""
    shouted = generator.encode(f"  {PROMPT.upper()}\n", SamplingParams())
    assert torch.equal(shouted.text_NLD, generator.encode(PROMPT, SamplingParams()).text_NLD)


def test_drawing_leaves_the_global_generator_alone(generator: PixArt) -> None:
    before = torch.get_rng_state()
    generate(generator, SEEDS, IMAGE)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_architecture_is_described(generator: PixArt) -> None:
    assert generator.architecture.model_dump() == {
        "transformer": "PixArtTransformer2DModel",
        "width": 48,
        "num_blocks": BLOCKS,
        "latent_channels": 4,
        "latent_size": 4,
        "text_width": 32,
    }


def test_options_go_with_the_name(folder: Path, pipeline: PixArtAlphaPipeline) -> None:
    loaded = load_generator(f"{folder},start_timestep=700", CPU, torch.float32)
    assert isinstance(loaded, PixArt)
    plain = call_reference_pipeline(pipeline, SEEDS, timesteps=[700])
    assert np.array_equal(pixels(generate(loaded, SEEDS, IMAGE).images), pixels(plain))


def test_a_folder_from_before_the_class_had_its_name_is_loaded(tmp_path: Path, generator: PixArt) -> None:
    """As the weights of the time were published: as a Transformer2DModel."""
    folder = save_tiny_pixart(tmp_path / "generator")
    changes: dict[str, dict[str, Any]] = {
        "model_index.json": {"transformer": ["diffusers", "Transformer2DModel"]},
        "transformer/config.json": {"_class_name": "Transformer2DModel"},
    }
    for file, change in changes.items():
        described = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**described, **change}))
    loaded = load_generator(str(folder), CPU, torch.float32)
    assert loaded.fingerprint == generator.fingerprint


@pytest.mark.parametrize("place", ["", "transformer"])
def test_dmd_s_transformer_comes_as_a_pickle_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """As it is published, beside the many-step pipeline that has everything else."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    dmd, many_steps = new_pipeline(), new_pipeline()
    many_steps.transformer = new_transformer()
    many_steps.scheduler = DPMSolverMultistepScheduler(**BETAS)
    many_steps.save_pretrained(tmp_path / "base")
    dmd.transformer.save_pretrained(tmp_path / "dmd" / place, safe_serialization=False)
    spec = KNOWN_MODELS["pixart-dmd"]
    with hub_server(monkeypatch) as hub:
        hub.models.update({spec.pipeline: tmp_path / "base", str(spec.transformer): tmp_path / "dmd"})
        loaded = load_generator("pixart-dmd,use_resolution_binning=false", CPU, torch.float32)
    assert isinstance(loaded, PixArt)
    plain = call_reference_pipeline(dmd, SEEDS)
    assert np.array_equal(pixels(generate(loaded, SEEDS, IMAGE).images), pixels(plain))


def test_a_verifier_reads_it_in_a_search(folder: Path, tmp_path: Path) -> None:
    verifier = save_tiny_verifier(tmp_path / "verifier", folder, num_prefix_blocks=2)
    best_of_n = BestOfN.from_pretrained(str(folder), str(verifier), device="cpu")
    result = best_of_n(PROMPT, n=4, seed=3)
    scores = [candidate.score for candidate in result.record.candidates]
    assert result.record.winner == int(np.argmax(scores))
    plain = call_reference_pipeline(new_pipeline(), [result.winner.seed])
    assert np.abs(pixels([result.image]) - pixels(plain)).max() <= 1
