"""Recipes by name: what the paper decided, carried over to generators of other depths."""

import pytest
import torch
from diffusers import FluxTransformer2DModel, SanaTransformer2DModel

from forejudge.errors import InvalidRequest
from forejudge.generators import known_models
from forejudge.profiling.sizes import PUBLISHED as SANA_SPRINT
from forejudge.training.config import CaptionRecipe, LabelRecipe, with_options
from forejudge.training.presets import PRESETS, RecipePreset, known_presets, load_preset
from research.published_flops import PIXART_512


def blocks_of(name: str) -> int:
    with torch.device("meta"):
        if name == "sana-sprint-1.6b":
            return int(SanaTransformer2DModel.from_config(dict(SANA_SPRINT.generator.transformer)).config.num_layers)
        if name == "flux-schnell":
            config = FluxTransformer2DModel().config
            return int(config.num_layers + config.num_single_layers)
    return PIXART_512["num_layers"] if name == "pixart-dmd" else 28


@pytest.mark.parametrize("recipe", known_presets().values(), ids=known_presets())
def test_known_recipes_can_be_run_as_they_are(recipe: RecipePreset) -> None:
    assert RecipePreset.model_validate(recipe.model_dump()) == recipe
    assert recipe.generator == recipe.caption.generator
    assert recipe.generator in known_models()
    for stage in (recipe.align, recipe.verify):
        assert stage.batch_size % stage.gradient_accumulation_steps == 0
        assert stage.warmup_steps < stage.steps
    if recipe.verify.has_language_model:
        assert recipe.align.model_dump(include=_SAME) == recipe.verify.model_dump(include=_SAME)
    assert recipe.label.record == recipe.caption.record
    assert recipe.label.record in (None, recipe.verify.reads)


_SAME = {"reads", "language_model", "vision_tower", "spatial_merge_size"}


@pytest.mark.parametrize(
    ("name", "reads", "tokens"),
    [
        ("sana-sprint-1.6b", "hidden:8", 32 * 32),
        ("sana-sprint-0.6b", "hidden:11", 32 * 32),
        ("pixart-dmd", "hidden:11", 32 * 32),
        ("flux-schnell", "hidden:23", 64 * 64),
    ],
)
def test_published_generators_have_the_paper_s_settings(name: str, reads: str, tokens: int) -> None:
    recipe = PRESETS[name]
    assert recipe.verify.reads == reads
    assert int(reads.partition(":")[2]) / blocks_of(name) == pytest.approx(8 / 20, abs=0.5 / blocks_of(name))
    assert tokens / recipe.verify.spatial_merge_size**2 == 1024
    assert recipe.label.candidates == 20
    assert recipe.prompts * recipe.label.candidates == 118_000
    assert recipe.verify.language_model == known_models()[name].language_model == "Qwen/Qwen2.5-0.5B-Instruct"
    assert recipe.verify.loss.kind == "class-weighted"
    assert recipe.caption.captioner == "google/gemma-3-4b-it"


def test_an_unknown_recipe_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=f"unknown recipe 'pixart': expected one of {', '.join(known_presets())}"):
        load_preset("pixart")


@pytest.mark.parametrize("name", PRESETS)
def test_options_go_before_a_recipe(name: str) -> None:
    known = PRESETS[name].label
    assert with_options(LabelRecipe, known, {"generator": None, "record": None}) == known
    changed = with_options(LabelRecipe, known, {"generator": "mine", "record": "none", "candidates": 4})
    assert changed == LabelRecipe(generator="mine", record="none", candidates=4, evaluator="geneval")


def test_without_a_recipe_what_has_no_default_is_asked_for() -> None:
    given = {"generator": "miniature", "captioner": "miniature", "candidates": None}
    assert with_options(CaptionRecipe, None, given).candidates == 1
    with pytest.raises(InvalidRequest, match="--captioner is missing: name one, or a --recipe"):
        with_options(CaptionRecipe, None, {"generator": "miniature", "captioner": None})
