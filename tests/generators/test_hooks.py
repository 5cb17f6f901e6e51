"""A transformer called in parts does what its own forward pass does around them: offloading, and LoRA's scale."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import SanaSprintPipeline
from peft import LoraConfig

from forejudge.errors import InvalidRequest
from forejudge.generators.base import SamplingParams
from forejudge.generators.sana_sprint import SanaSprint
from forejudge.types import IMAGE, prefix_stage
from tests.support.doubles import CPU, PROMPT, call_reference_pipeline, load_pipeline

SEED = 7


def generate(pipeline: SanaSprintPipeline, **sampling: Any) -> np.ndarray:
    """Generate one image, stopped on its way after two blocks."""
    generator = SanaSprint(pipeline, "tiny")
    candidate = generator.start(generator.encode(PROMPT, SamplingParams(**sampling)), (SEED,))
    candidate = generator.advance(candidate, [prefix_stage(2)])
    return np.asarray(generator.advance(candidate, [IMAGE]).images[0])


@pytest.fixture
def pipeline(tiny_generator: Path) -> SanaSprintPipeline:
    return load_pipeline(tiny_generator)


@pytest.fixture
def with_lora(pipeline: SanaSprintPipeline) -> SanaSprintPipeline:
    torch.manual_seed(1)
    adapter = LoraConfig(r=4, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False)
    pipeline.transformer.add_adapter(adapter)
    return pipeline


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.0])
def test_a_lora_weighs_what_it_weighs_in_the_pipeline(with_lora: SanaSprintPipeline, scale: float) -> None:
    found = generate(with_lora, lora_scale=scale)
    (plain,) = call_reference_pipeline(with_lora, [SEED], attention_kwargs={"scale": scale})
    assert np.array_equal(found, np.asarray(plain))


def test_the_scale_of_a_lora_matters(with_lora: SanaSprintPipeline) -> None:
    assert not np.array_equal(generate(with_lora, lora_scale=1.0), generate(with_lora, lora_scale=0.5))


def test_weights_that_lie_elsewhere_are_fetched(pipeline: SanaSprintPipeline) -> None:
    """As after `enable_sequential_cpu_offload`: every layer's weights are there only while it runs."""
    expected, before = generate(pipeline), SanaSprint(pipeline, "tiny").fingerprint
    for part in (pipeline.transformer, pipeline.text_encoder):
        cpu_offload(part, execution_device=CPU)
    assert next(pipeline.transformer.parameters()).is_meta
    generator = SanaSprint(pipeline, "tiny")
    assert (generator.device, generator.fingerprint) == (CPU, before)
    assert np.array_equal(generate(pipeline), expected)
    assert next(pipeline.transformer.parameters()).is_meta


class RecordedHook(ModelHook):
    """Writes down when it is called."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> Any:
        self.calls.append("before")
        return args, kwargs

    def post_forward(self, module: Any, output: Any) -> Any:
        self.calls.append("after")
        return output


def test_a_hook_is_called_around_each_half_even_if_it_fails(
    pipeline: SanaSprintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `enable_model_cpu_offload`, whose hook brings the model to its device."""
    calls: list[str] = []
    add_hook_to_module(pipeline.transformer, RecordedHook(calls))
    generate(pipeline)
    assert calls == ["before", "after"] * 2

    def out_of_memory(*given: Any) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(pipeline.transformer.transformer_blocks[0], "forward", out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        generate(pipeline)
    assert calls == ["before", "after"] * 3


def test_models_are_released_after_the_image_as_by_the_pipeline(
    pipeline: SanaSprintPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[str] = []
    monkeypatch.setattr(pipeline, "maybe_free_model_hooks", lambda: freed.append("freed"))
    generate(pipeline)
    assert freed == ["freed"]


def test_a_transformer_whose_forward_pass_is_replaced_is_refused(pipeline: SanaSprintPipeline) -> None:
    pipeline.transformer.enable_group_offload(
        onload_device=CPU, offload_device=CPU, offload_type="block_level", num_blocks_per_group=1
    )
    with pytest.raises(InvalidRequest, match=r"SanaTransformer2DModel carries hooks of diffusers .*enable_model_cpu"):
        SanaSprint(pipeline, "tiny")


@pytest.mark.gpu
@pytest.mark.parametrize("offload", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_offloading_on_a_gpu_changes_no_image(tiny_generator: Path, offload: str) -> None:
    expected = generate(load_pipeline(tiny_generator).to("cuda"))
    pipeline = load_pipeline(tiny_generator)
    switch_on: Callable[[], None] = getattr(pipeline, offload)
    switch_on()
    assert np.array_equal(generate(pipeline), expected)
