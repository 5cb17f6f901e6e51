"""The second generator's build on a shrunken recipe: it goes on where it was, and what it leaves is loaded by name."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.generators import load_generator
from forejudge.generators.base import SamplingParams
from forejudge.progress import Progress, ignore_progress
from forejudge.types import IMAGE, prefix_stage
from research.miniature.generator import PIXART, build_generator
from research.miniature.pixart_generator import OPTIONS
from research.miniature.recipe import GeneratorRecipe, tiny_recipe
from tests.support.doubles import CPU, PROMPT

MINIATURE = Path(__file__).parents[2] / "src" / "forejudge" / "miniature" / "weights"
RECIPE = tiny_recipe().generator


class Stopped(Exception):
    """A kill, at a moment that a test chooses."""


def stop_in_the_deep_part(progress: Progress) -> None:
    if progress.part == "generator":
        raise Stopped


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build that was stopped once."""
    folder = tmp_path_factory.mktemp("pixart")
    with pytest.raises(Stopped):
        build_generator(PIXART, folder, MINIATURE, RECIPE, CPU, stop_in_the_deep_part)
    build_generator(PIXART, folder, MINIATURE, RECIPE, CPU, ignore_progress)
    return folder


def test_what_is_built_draws_in_one_step(built: Path) -> None:
    generator = load_generator(str(built / "generator"), CPU, torch.float32)
    assert generator.options == OPTIONS
    assert (generator.architecture.num_blocks, generator.architecture.width) == (RECIPE.blocks, RECIPE.width)
    candidates = generator.start(generator.encode(PROMPT, SamplingParams()), (1, 2))
    assert generator.advance(candidates, [prefix_stage(2), IMAGE]).images[1].size == (64, 64)


def test_it_draws_with_the_miniatures_autoencoder_in_half_precision(built: Path) -> None:
    file = "generator/vae/diffusion_pytorch_model.safetensors"
    mine, given = load_file(built / file), load_file(MINIATURE / file)
    assert all(torch.equal(mine[name], tensor) for name, tensor in given.items())
    transformer = load_file(built / "generator" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in transformer.values()} == {torch.float16}


def test_a_build_that_was_stopped_ends_the_same(built: Path, tmp_path: Path) -> None:
    build_generator(PIXART, tmp_path, MINIATURE, RECIPE, CPU, ignore_progress)
    file = "generator/transformer/diffusion_pytorch_model.safetensors"
    assert (tmp_path / file).read_bytes() == (built / file).read_bytes()


def test_a_card_tells_how_it_was_made(built: Path) -> None:
    card = (built / "generator" / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "| commit |" in card
    assert '"shallow_blocks": 2' in card


def test_another_recipe_in_the_same_folder_is_refused(built: Path) -> None:
    other: GeneratorRecipe = RECIPE.model_copy(update={"blocks": 6})
    with pytest.raises(InvalidRequest, match="holds another recipe"):
        build_generator(PIXART, built, MINIATURE, other, CPU, ignore_progress)


def test_without_a_miniature_there_is_no_autoencoder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"vae.*cannot be loaded"):
        build_generator(PIXART, tmp_path, tmp_path / "nothing", RECIPE, CPU, ignore_progress)
