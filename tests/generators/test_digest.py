"""One digest of everything that generates, from files or from a pipeline that is handed over."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SanaSprintPipeline
from peft import LoraConfig
from torch import nn

from forejudge.generators import as_generator, load_generator
from forejudge.generators.base import OPTIONS_FILE
from tests.support.doubles import CPU
from tests.support.folders import copy_folder


@pytest.fixture
def pipeline(tiny_generator: Path) -> Any:
    return SanaSprintPipeline.from_pretrained(tiny_generator)


def fingerprint(pipeline: Any) -> str:
    return as_generator(pipeline).fingerprint


def test_it_depends_neither_on_the_folder_nor_on_who_loads_it(
    tiny_generator: Path, tmp_path: Path, pipeline: Any
) -> None:
    names = [str(tiny_generator), str(copy_folder(tiny_generator, tmp_path / "copy"))]
    found = {load_generator(name, CPU, dtype).fingerprint for name in names for dtype in (torch.float32, torch.float16)}
    assert found == {fingerprint(pipeline)}


def _nudge(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight[(0,) * weight.dim()] += 1


CHANGES: dict[str, Callable[[Any], Any]] = {
    "a block": lambda pipeline: _nudge(pipeline.transformer.transformer_blocks[0].attn1.to_q.weight),
    "the text encoder": lambda pipeline: _nudge(next(pipeline.text_encoder.parameters())),
    "the decoder": lambda pipeline: _nudge(next(pipeline.vae.decoder.parameters())),
    "the decoder's scale": lambda pipeline: pipeline.vae.register_to_config(scaling_factor=0.5),
    "the scheduler": lambda pipeline: pipeline.scheduler.register_to_config(sigma_data=0.25),
    "the tokenizer": lambda pipeline: pipeline.tokenizer.add_tokens(["circles"]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_depends_on(pipeline: Any, change: str) -> None:
    before = fingerprint(pipeline)
    CHANGES[change](pipeline)
    assert fingerprint(pipeline) != before


def test_it_depends_on_options_of_the_folder_and_of_the_caller(tiny_generator: Path, tmp_path: Path) -> None:
    folder = copy_folder(tiny_generator, tmp_path / "copy")
    options = json.loads((folder / OPTIONS_FILE).read_text()) | {"max_timesteps": 1.5}
    (folder / OPTIONS_FILE).write_text(json.dumps(options))
    by_folder, by_caller, plain = (
        load_generator(name, CPU, torch.float32).fingerprint
        for name in (str(folder), f"{tiny_generator},max_timesteps=1.5", str(tiny_generator))
    )
    assert by_folder == by_caller != plain


def test_it_depends_on_adapters_their_scales_and_whether_they_are_merged(pipeline: Any) -> None:
    generator, transformer = as_generator(pipeline), pipeline.transformer
    plain = generator.fingerprint
    torch.manual_seed(0)
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    live = generator.fingerprint
    transformer.set_adapters(["default"], [0.5])
    half = generator.fingerprint
    transformer.disable_adapters()
    assert generator.fingerprint == plain
    transformer.enable_adapters()
    transformer.fuse_lora()
    fused = generator.fingerprint
    transformer.unload_lora()
    merged = fingerprint(pipeline)
    assert len({plain, live, half, fused, merged}) == 5


def test_a_weight_changed_in_place_is_noticed(pipeline: Any) -> None:
    generator = as_generator(pipeline)
    before = generator.fingerprint
    _nudge(pipeline.transformer.proj_out.weight)
    assert generator.fingerprint != before


def test_compiled_parts_count_as_what_they_compile(pipeline: Any) -> None:
    before = fingerprint(pipeline)
    pipeline.vae = torch.compile(pipeline.vae, backend="eager")
    assert isinstance(pipeline.vae, nn.Module)
    assert fingerprint(pipeline) == before
