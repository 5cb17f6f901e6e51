"""A generator's architecture, read without its weights."""

import json
from pathlib import Path

import pytest
from tests.doubles import CPU
from tests.folders import copied
from torch import float32

from forejudge.errors import CheckpointError
from forejudge.generators import load_generator
from forejudge.profiling.sana_sprint_work import BLOCKS
from forejudge.verifiers.made_for import SANA_SPRINT_1_6B, architecture_named


@pytest.mark.parametrize("name", ["miniature", "tiny"])
def test_it_is_that_of_the_loaded_generator(name: str, tiny_generator: Path) -> None:
    source = str(tiny_generator) if name == "tiny" else name
    assert architecture_named(source) == load_generator(source, CPU, float32).architecture


def test_no_weights_are_needed(tiny_generator: Path, tmp_path: Path) -> None:
    folder = copied(tiny_generator, tmp_path / "generator")
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    assert architecture_named(str(folder)) == architecture_named(str(tiny_generator))


def test_the_default_one_is_as_deep_as_where_its_work_is_counted() -> None:
    assert SANA_SPRINT_1_6B.num_blocks == BLOCKS


def test_another_pipeline_or_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="minature is no folder, nor a hub id"):
        architecture_named("minature")
    with pytest.raises(CheckpointError, match=r"transformer/config\.json is missing"):
        architecture_named(str(tmp_path))
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps({"_class_name": "FluxTransformer2DModel"}))
    with pytest.raises(CheckpointError, match="_class_name: Input should be 'SanaTransformer2DModel'"):
        architecture_named(str(tmp_path))
