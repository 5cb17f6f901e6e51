"""Contract of every generator: its split equals the library's forward pass, its images are the pipeline's.

A test file of an architecture inherits these classes and says what is tested: by the methods that are left open here,
and by module fixtures `transformer` (of a split) or `folder` (a pipeline's, with its options) and `generator`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from diffusers import DiffusionPipeline
from peft import LoraConfig
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from forejudge import BestOfN
from forejudge.errors import InvalidRequest
from forejudge.generators import as_generator, load_generator
from forejudge.generators.base import Generator, SamplingParams
from forejudge.generators.split import SplitTransformer
from forejudge.types import IMAGE, NOISE, Candidates, Stage, latent_stage, prefix_stage
from forejudge.verifiers import load_verifier
from tests.support.doubles import CPU, PROMPT
from tests.support.pipeline_state import pipeline_state
from tests.support.tiny import save_tiny_verifier

SEEDS = (7, 2**32 - 1, 123456789)
Size = tuple[int, int]  # height and width, in pixels
ROUNDING = 1e-5  # between batches of other sizes, in float32


class SplitContract:
    """A transformer in two halves: bit for bit the library's own forward pass, at every cut."""

    split: SplitTransformer[Any, Any, Any]
    shared: tuple[str, ...] = ()  # fields of a state that all its rows have in common

    def inputs(self, transformer: Any, count: int) -> Any:
        """A batch in the transformer's dtype, whose rows differ in all that may differ."""
        raise NotImplementedError

    def forward(self, transformer: Any, split_inputs: Any) -> Tensor:
        """The library's own forward pass."""
        raise NotImplementedError

    def blocks(self, transformer: Any) -> list[nn.Module]:
        """In the order in which they run."""
        return list(transformer.transformer_blocks)

    def hidden_of(self, block: nn.Module, output: Any) -> Tensor:
        """The hidden state in what a block returns."""
        return output

    @pytest.fixture(autouse=True)
    def _without_gradients(self) -> Iterator[None]:
        with torch.no_grad():
            yield

    def run(self, transformer: Any, split_inputs: Any, cut: int) -> Tensor:
        """Both halves, one after the other."""
        return self.split.suffix(transformer, self.split.prefix(transformer, split_inputs, cut), cut)

    @pytest.mark.parametrize("count", [1, 3])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_suffix_of_prefix_is_the_forward_pass(self, transformer: Any, dtype: torch.dtype, count: int) -> None:
        transformer = in_dtype(transformer, dtype)
        split_inputs = self.inputs(transformer, count)
        expected = self.forward(transformer, split_inputs)
        assert expected.dtype == dtype
        for cut in range(len(self.blocks(transformer)) + 1):
            assert torch.equal(self.run(transformer, split_inputs, cut), expected), f"cut after {cut} blocks"

    def test_stopping_twice_changes_nothing(self, transformer: Any) -> None:
        split_inputs, last = self.inputs(transformer, 3), len(self.blocks(transformer))
        expected = self.forward(transformer, split_inputs)
        states = [self.split.prefix(transformer, split_inputs, cut) for cut in range(last + 1)]
        for first in range(last + 1):
            for second in range(first, last + 1):
                state = self.split.run_blocks(transformer, states[first], first, second)
                assert torch.equal(state.hidden_NTD, states[second].hidden_NTD), f"from {first} to {second} blocks"
                assert torch.equal(self.split.suffix(transformer, state, second), expected), f"{first}, {second}"

    def test_the_state_is_the_hidden_state_after_that_many_blocks(self, transformer: Any) -> None:
        seen: list[Tensor] = []
        hooks = [
            block.register_forward_hook(lambda block, _, output: seen.append(self.hidden_of(block, output)))
            for block in self.blocks(transformer)
        ]
        split_inputs = self.inputs(transformer, 3)
        self.forward(transformer, split_inputs)
        for hook in hooks:
            hook.remove()
        for cut, hidden_NTD in enumerate(seen, start=1):
            assert torch.equal(self.split.prefix(transformer, split_inputs, cut).hidden_NTD, hidden_NTD), (
                f"{cut} blocks"
            )

    def test_every_input_matters(self, transformer: Any) -> None:
        """Else the equalities above would show little: each input, the mask's padding too, moves the output."""
        split_inputs = self.inputs(transformer, 3)
        reference = self.forward(transformer, split_inputs)
        for name, value in vars(split_inputs).items():
            if value is None:
                continue
            changed = (
                torch.ones_like(value) if name.startswith("mask") else value + 2 * torch.ones_like(value).cumsum(-1)
            )
            moved = self.run(transformer, replace(split_inputs, **{name: changed}), 2)
            assert not torch.allclose(moved, reference, atol=ROUNDING), name

    def test_rows_of_a_state_go_on_alone(self, transformer: Any) -> None:
        split_inputs = self.inputs(transformer, 3)
        whole = self.forward(transformer, split_inputs)
        for cut in range(len(self.blocks(transformer)) + 1):
            chosen = self.split.prefix(transformer, split_inputs, cut)[[2, 0]]
            single = self.split.suffix(transformer, chosen, cut)
            torch.testing.assert_close(single, whole[[2, 0]], rtol=0, atol=ROUNDING)

    def test_rows_of_a_state_hold_no_memory_of_the_others(self, transformer: Any) -> None:
        """Shared fields are not copied for each row."""
        for cut in range(len(self.blocks(transformer)) + 1):
            state = self.split.prefix(transformer, self.inputs(transformer, 3), cut)
            chosen = state[[1]]
            for name, value in vars(chosen).items():
                if name in self.shared:
                    assert value is getattr(state, name), name
                elif value is not None:
                    assert len(value) == 1, name
                    assert value.untyped_storage().nbytes() == value.numel() * value.element_size(), name


class GeneratorContract:
    """A generator that can stop anywhere: its images equal those of its pipeline's own call, pixel for pixel."""

    size: Size | None = None  # of the images here; None is the generator's default
    other_size: Size  # one that is no square
    wrong_sizes: Sequence[Size]
    longest_prompt: int  # in tokens, with all that goes around it

    def call_reference_pipeline(
        self, pipeline: Any, seeds: Sequence[int], sampling: SamplingParams, **arguments: Any
    ) -> Any:
        """Call the pipeline itself with PROMPT and seeds, with no line of ours, in one batch."""
        raise NotImplementedError

    def reference_latents(self, pipeline: Any, seeds: Sequence[int], sampling: SamplingParams) -> Tensor:
        """Return the latents that the pipeline's own call ends with, in the layout of a latent view."""
        return self.call_reference_pipeline(pipeline, seeds, sampling, output_type="latent")

    @pytest.fixture(params=[1, 2, 4])
    def steps(self, request: pytest.FixtureRequest) -> Any:
        """Numbers of steps that the generator takes."""
        return request.param

    @pytest.fixture
    def pipeline(self, folder: Path) -> Any:
        """Loaded with diffusers alone."""
        return load_reference_pipeline(folder)

    def sampling(self, size: Size | None = None, **options: Any) -> SamplingParams:
        height, width = size or self.size or (None, None)
        return SamplingParams(height=height, width=width, **options)

    def generated(self, generator: Generator, seeds: tuple[int, ...], *stops: Stage, **options: Any) -> Candidates:
        """Candidates taken to the last stop, in one call of `advance` for each."""
        candidates = generator.start(generator.encode(PROMPT, self.sampling(**options)), seeds)
        for stop in stops:
            candidates = generator.advance(candidates, [stop])
        return candidates

    def test_a_candidate_is_the_image_of_the_reference_pipeline(
        self, generator: Generator, pipeline: Any, steps: int
    ) -> None:
        sampling = self.sampling(steps=steps)
        expected = pixels(self.call_reference_pipeline(pipeline, SEEDS[:1], sampling))
        latents = self.reference_latents(pipeline, SEEDS[:1], sampling)
        last = latent_stage(steps - 1)
        assert expected.std() > 1, "a blank image would show nothing"
        for cut in range(generator.architecture.num_blocks + 1):
            candidate = self.generated(generator, SEEDS[:1], prefix_stage(cut), last, IMAGE, steps=steps)
            assert torch.equal(candidate.tensor(last), latents), f"cut after {cut} blocks"
            assert np.array_equal(pixels(candidate.images), expected), f"cut after {cut} blocks"

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_a_batch_is_that_of_the_reference_pipeline(self, folder: Path, dtype: torch.dtype, steps: int) -> None:
        """At equal batch composition."""
        pipeline = load_reference_pipeline(folder, dtype)
        candidates = self.generated(as_generator(pipeline), SEEDS, prefix_stage(2), IMAGE, steps=steps)
        reference = pixels(self.call_reference_pipeline(pipeline, SEEDS, self.sampling(steps=steps)))
        assert np.array_equal(pixels(candidates.images), reference)

    def test_an_image_scored_in_a_batch_differs_by_at_most_one_gray_level(
        self, generator: Generator, pipeline: Any, steps: int
    ) -> None:
        candidates = self.generated(generator, SEEDS, prefix_stage(2), steps=steps)
        for row, seed in enumerate(SEEDS):
            single = pixels(generator.advance(candidates[[row]], [IMAGE]).images)
            reference = pixels(self.call_reference_pipeline(pipeline, [seed], self.sampling(steps=steps)))
            assert np.abs(single - reference).max() <= 1

    def test_a_later_step_can_be_scored_as_well(self, generator: Generator, pipeline: Any, steps: int) -> None:
        earlier = [prefix_stage(1), latent_stage(0)] if steps > 1 else []
        later = [prefix_stage(1, step=steps - 1), prefix_stage(2, step=steps - 1), latent_stage(steps - 1)]
        stops = [*earlier, *later, IMAGE]
        candidate = self.generated(generator, SEEDS[:1], *stops, steps=steps)
        reference = pixels(self.call_reference_pipeline(pipeline, SEEDS[:1], self.sampling(steps=steps)))
        assert np.array_equal(pixels(candidate.images), reference)
        assert set(candidate.views) == set(stops)

    @pytest.mark.parametrize("begun", [prefix_stage(2), latent_stage(), IMAGE], ids=str)
    def test_a_candidate_of_one_step_goes_on_in_two(self, generator: Generator, pipeline: Any, begun: Stage) -> None:
        candidates = generator.with_steps(self.generated(generator, SEEDS, begun), 2)
        images = generator.advance(candidates, [latent_stage(1), IMAGE]).images
        reference = pixels(self.call_reference_pipeline(pipeline, SEEDS, self.sampling(steps=2)))
        assert np.array_equal(pixels(images), reference)
        with pytest.raises(InvalidRequest, match=r"cannot go from 2 to 3 steps in step 1: only the first"):
            generator.with_steps(generator.advance(candidates, [latent_stage(1)]), 3)

    def test_several_stages_are_read_on_one_way(self, generator: Generator) -> None:
        stages = (NOISE, prefix_stage(2), latent_stage(), IMAGE)
        together = generator.advance(self.generated(generator, SEEDS), stages[::-1])
        one_by_one = self.generated(generator, SEEDS, *stages)
        assert together.stage == one_by_one.stage == IMAGE
        for stage in stages[:-1]:
            assert torch.equal(together.tensor(stage), one_by_one.tensor(stage))

    def test_views_are_as_wide_as_the_architecture_says(self, generator: Generator) -> None:
        views = self.generated(generator, SEEDS, prefix_stage(2), latent_stage())
        hidden_NTD, latents_NCHW = views.tensor(prefix_stage(2)), views.tensor(latent_stage())
        architecture = generator.architecture
        assert (len(hidden_NTD), hidden_NTD.shape[2]) == (3, architecture.width)
        assert latents_NCHW.shape[:2] == (3, architecture.latent_channels)
        assert views.text_LD is not None
        assert views.text_LD.shape[1:] == (architecture.text_width,)
        if self.size is None:
            assert hidden_NTD.shape[1] == architecture.latent_size**2

    @pytest.mark.parametrize("is_square", [True, False])
    def test_the_grid_is_that_of_the_tokens(self, generator: Generator, is_square: bool) -> None:
        size = self.size if is_square else self.other_size
        candidates = self.generated(generator, SEEDS, prefix_stage(1), latent_stage(), size=size)
        assert candidates.grid is not None
        rows, columns = candidates.grid
        height, width = candidates.tensor(latent_stage()).shape[-2:]
        assert rows * columns == candidates.tensor(prefix_stage(1)).shape[1]
        assert height * columns == width * rows
        assert (rows == columns) == is_square
        assert generator.grid(self.sampling(size)) == (rows, columns)
        assert candidates[[1]].grid == candidates.without_views().grid == (rows, columns)

    def test_other_steps_than_asked_for_are_refused(self, generator: Generator) -> None:
        with pytest.raises(InvalidRequest, match="needs more than the 1 steps"):
            self.generated(generator, SEEDS, prefix_stage(1, step=1))

    def test_a_size_is_that_of_the_call(self, generator: Generator, pipeline: Any) -> None:
        candidate = self.generated(generator, SEEDS[:1], IMAGE, size=self.other_size)
        reference = pixels(self.call_reference_pipeline(pipeline, SEEDS[:1], self.sampling(self.other_size)))
        assert reference.shape[1:3] == self.other_size
        assert np.array_equal(pixels(candidate.images), reference)

    def test_the_callers_pipeline_is_left_as_it_was(self, pipeline: Any) -> None:
        """Except what its own first call leaves: transformers keeps hooks that gather hidden states."""
        self.call_reference_pipeline(pipeline, SEEDS[:1], self.sampling())
        pipeline.scheduler.timesteps = torch.arange(7)
        for part, tokenizer in pipeline.components.items():
            if part.startswith("tokenizer"):
                tokenizer.padding_side = "left"
        before = pipeline_state(pipeline)
        self.generated(as_generator(pipeline), SEEDS, prefix_stage(2), IMAGE)
        assert pipeline_state(pipeline) == before

    def test_the_best_of_several_is_the_image_of_its_seed(self, folder: Path, pipeline: Any, tmp_path: Path) -> None:
        """The pipeline is passed as it is; the verifier merges 2 x 2 tokens."""
        saved = save_tiny_verifier(tmp_path / "verifier", folder, num_prefix_blocks=2, merge_size=2)
        best_of_n = BestOfN(pipeline, load_verifier(str(saved), CPU, torch.float32))
        result = best_of_n(PROMPT, n=3, sampling=self.sampling())
        assert len({candidate.score for candidate in result.candidates}) == 3
        reference = pixels(self.call_reference_pipeline(pipeline, [result.winner.seed], self.sampling()))
        assert np.abs(pixels([result.image]) - reference).max() <= 1

    def test_an_offloaded_pipeline_generates_the_same(self, generator: Generator, pipeline: Any) -> None:
        """As after `enable_sequential_cpu_offload`, except for the device that its components run on."""
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                cpu_offload(part, CPU)
        offloaded = as_generator(pipeline, options=generator.options.model_dump())
        assert (offloaded.device, offloaded.fingerprint) == (CPU, generator.fingerprint)
        actual, expected = (self.generated(each, SEEDS, prefix_stage(2), IMAGE) for each in (offloaded, generator))
        assert np.array_equal(pixels(actual.images), pixels(expected.images))

    @pytest.mark.slow
    def test_compiled_it_generates_the_same(self, generator: Generator, compile_counter: CompileCounter) -> None:
        fast = generator.compiled()
        for seeds in (SEEDS[:1], SEEDS):
            actual, expected = (self.generated(each, seeds, prefix_stage(2), IMAGE) for each in (fast, generator))
            hidden = (each.tensor(prefix_stage(2)) for each in (actual, expected))
            torch.testing.assert_close(*hidden, rtol=0, atol=ROUNDING)
            assert np.abs(pixels(actual.images) - pixels(expected.images)).max() <= 1
        assert compile_counter.frame_count

    @pytest.mark.parametrize("prompt", ["", "  \n\t "])
    def test_an_empty_prompt_is_refused(self, generator: Generator, prompt: str) -> None:
        for refuse in (generator.check, generator.encode):
            with pytest.raises(InvalidRequest, match="the prompt is empty"):
                refuse(prompt, self.sampling())

    def test_a_prompt_is_refused_from_the_first_token_that_would_be_cut(self, generator: Generator) -> None:
        """The last word of the longest prompt that is let through is read; one word more is named."""
        words = ["red"] * (self.longest_prompt + 1)
        while True:
            try:
                read = generator.encode(" ".join(words), self.sampling())
                break
            except InvalidRequest as error:
                refused = str(error)
                words.pop()
        assert len(words) <= self.longest_prompt
        assert refused.partition("would be cut: ")[2].strip("'▁ ") == "red"
        other = generator.encode(" ".join([*words[:-1], "blue"]), self.sampling())
        assert not torch.equal(read.text_NLD, other.text_NLD)

    def test_an_impossible_size_is_refused(self, generator: Generator) -> None:
        for size in self.wrong_sizes:
            for refuse in (generator.check, generator.encode):
                with pytest.raises(InvalidRequest, match="both sides must be multiples of"):
                    refuse(PROMPT, self.sampling(size))

    def test_prompts_are_checked_without_the_text_encoders(self, generator: Generator, pipeline: Any) -> None:
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.register_forward_pre_hook(lambda module, split_inputs: pytest.fail(f"{type(module).__name__} ran"))
        checked = as_generator(pipeline, options=generator.options.model_dump())
        checked.check(PROMPT, self.sampling())
        with pytest.raises(InvalidRequest, match="would be cut"):
            checked.check("red " * (self.longest_prompt + 1), self.sampling())

    def test_prompts_are_checked_without_weights(self, folder: Path, generator: Generator, tmp_path: Path) -> None:
        configs = copytree(folder, tmp_path / "configs", ignore=ignore_patterns("*.safetensors"))
        without_weights = load_generator(str(configs), torch.device("meta"), torch.float32)
        assert without_weights.architecture == generator.architecture
        without_weights.check(PROMPT, self.sampling())
        for prompt, size in (("red " * (self.longest_prompt + 1), None), (PROMPT, self.wrong_sizes[0])):
            messages = []
            for each in (without_weights, generator):
                with pytest.raises(InvalidRequest) as refused:
                    each.check(prompt, self.sampling(size))
                messages.append(str(refused.value))
            assert messages[0] == messages[1]

    def test_the_fingerprint_tells_weights_apart_but_not_dtypes(self, folder: Path, generator: Generator) -> None:
        half, other = load_reference_pipeline(folder, torch.bfloat16), load_reference_pipeline(folder)
        assert as_generator(half).fingerprint == generator.fingerprint
        with torch.no_grad():
            other.transformer.proj_out.weight += 0.01
        assert as_generator(other).fingerprint != generator.fingerprint


class AdapterContract(GeneratorContract):
    """A generator whose LoRA adapters are weighed as its pipeline's own call weighs them, too."""

    scale_argument: str  # of the pipeline's call, a mapping with "scale"

    def test_adapters_are_weighed(self, folder: Path) -> None:
        pipeline = load_reference_pipeline(folder)
        generator = as_generator(pipeline)
        without_adapter = pixels(self.generated(generator, SEEDS[:1], IMAGE).images)
        torch.manual_seed(0)
        adapter = LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
        pipeline.transformer.add_adapter(adapter)
        for scale in (1.0, 0.5):
            argument = {self.scale_argument: {"scale": scale}}
            reference = pixels(self.call_reference_pipeline(pipeline, SEEDS[:1], self.sampling(), **argument))
            actual = self.generated(generator, SEEDS[:1], prefix_stage(2), IMAGE, lora_scale=scale)
            assert np.array_equal(pixels(actual.images), reference)
            assert not np.array_equal(without_adapter, reference), "the adapter shows"
            without_adapter = reference


class TextAdapterContract(AdapterContract):
    """A generator whose text encoder's adapters are weighed by the same argument of the call."""

    def test_the_text_encoders_adapters_are_weighed(self, folder: Path) -> None:
        pipeline = load_reference_pipeline(folder)
        adapter = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        pipeline.text_encoder.add_adapter(adapter)
        generator = as_generator(pipeline)
        whole, half = (
            self.generated(generator, SEEDS[:1], latent_stage(), lora_scale=scale).tensor(latent_stage())
            for scale in (1.0, 0.5)
        )
        argument = {self.scale_argument: {"scale": 0.5}}
        assert not torch.equal(whole, half)
        reference = pixels(self.call_reference_pipeline(pipeline, SEEDS[:1], self.sampling(), **argument))
        assert np.array_equal(pixels(self.generated(generator, SEEDS[:1], IMAGE, lora_scale=0.5).images), reference)


def in_dtype(transformer: Any, dtype: torch.dtype) -> Any:
    """Copy a transformer in another dtype."""
    if dtype == transformer.dtype:
        return transformer
    other = type(transformer).from_config(transformer.config).eval()
    other.load_state_dict(transformer.state_dict())
    return other.to(dtype)


def load_reference_pipeline(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Load a pipeline with diffusers alone."""
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pixels(images: Any) -> np.ndarray:
    """(N, H, W, 3), of a type that can be subtracted."""
    return np.stack([np.asarray(image) for image in images]).astype(int)


class PaddingContract:
    """An architecture that masks the padding of its text."""

    def test_a_prompt_without_its_padding_makes_the_same_candidates(self, generator: Any) -> None:
        whole, short = (
            generator.encode(PROMPT, SamplingParams()),
            generator.encode_without_padding(PROMPT, SamplingParams()),
        )
        assert short.text_NLD.shape[1] == whole.mask_NL.sum() < whole.text_NLD.shape[1] // 4
        actual, expected = (
            generator.advance(generator.start(conditioning, SEEDS), [prefix_stage(2), IMAGE])
            for conditioning in (short, whole)
        )
        torch.testing.assert_close(actual.tensor(prefix_stage(2)), expected.tensor(prefix_stage(2)))
        assert np.abs(pixels(actual.images) - pixels(expected.images)).max() <= 1
