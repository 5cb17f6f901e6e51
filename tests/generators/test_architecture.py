"""Architectures of generators that are not loaded: from the registry, or from a config without any weights."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel, SanaTransformer2DModel

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.generators import KNOWN_MODELS, load_architecture, load_generator
from forejudge.generators.flux import FluxSplit
from forejudge.generators.known import SANA_SPRINT_1_6B
from forejudge.generators.sana_sprint import SanaSplit
from tests.support.doubles import CPU
from tests.support.folders import copy_folder
from tests.support.tiny_flux import new_flux, new_flux2, save_flux, save_flux2
from tests.support.tiny_pixart import save_tiny_pixart
from tests.support.tiny_sd3 import new_sd3, save_sd3


@pytest.fixture(params=["sana", "pixart", "flux", "flux2", "sd3"])
def folder(request: pytest.FixtureRequest, tiny_generator: Path, tmp_path: Path) -> Path:
    """A pipeline of each class."""
    save = {
        "sana": lambda: copy_folder(tiny_generator, tmp_path / "generator"),
        "pixart": lambda: save_tiny_pixart(tmp_path / "generator"),
        "flux": lambda: save_flux(tmp_path / "generator", new_flux()),
        "flux2": lambda: save_flux2(tmp_path / "generator", new_flux2()),
        "sd3": lambda: save_sd3(tmp_path / "generator", new_sd3()),
    }
    return save[request.param]()


def test_the_config_says_what_the_loaded_generator_says(folder: Path) -> None:
    loaded = load_generator(str(folder), CPU, torch.float32).architecture
    for weights in folder.rglob("*.safetensors"):
        weights.unlink()
    assert load_architecture(str(folder)) == loaded


def test_the_miniature_is_described_as_it_is_loaded() -> None:
    assert load_architecture("miniature") == load_generator("miniature", CPU, torch.float32).architecture


def test_the_registry_agrees_with_the_classes_published_sizes() -> None:
    """The defaults of diffusers' classes are those of SANA-Sprint 1.6B and FLUX.1."""
    with torch.device("meta"):
        assert SanaSplit().architecture(SanaTransformer2DModel()) == SANA_SPRINT_1_6B
        assert FluxSplit().architecture(FluxTransformer2DModel()) == KNOWN_MODELS["flux-schnell"].architecture
    assert load_architecture("sana-sprint-1.6b") == SANA_SPRINT_1_6B


def test_another_pipeline_or_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="unknown generator 'minature'"):
        load_architecture("minature")
    with pytest.raises(CheckpointError, match=r"holds no model_index\.json"):
        load_architecture(str(tmp_path))
    index = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="transformer cannot be loaded: it is missing"):
        load_architecture(str(tmp_path))
    (tmp_path / "model_index.json").write_text(json.dumps({**index, "_class_name": "OtherPipeline"}))
    with pytest.raises(InvalidRequest, match="holds a OtherPipeline, which is not supported"):
        load_architecture(str(tmp_path))
