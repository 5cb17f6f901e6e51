"""Costs of stages, counted on the calls that run: of the published sizes, and of every generator."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from forejudge.generators import as_generator
from forejudge.generators.stepwise import StepwiseGenerator
from forejudge.profiling.figures import CLIP, DECODE, ENCODE, LATER_STEPS, PREFIX, PREVIEW, SUFFIX, scoring_stage
from forejudge.profiling.measure import count_flops
from forejudge.profiling.models import PROMPT, ProfiledModels
from forejudge.profiling.sizes import KINDS, new_verifier, random_models
from forejudge.profiling.strategies import Forejudge, Official
from tests.support.published_costs import TERA, published_costs
from tests.support.tiny_flux import new_flux, new_flux2
from tests.support.tiny_parts import TEXT_TOKENS
from tests.support.tiny_pixart import new_pipeline as new_pixart
from tests.support.tiny_sd3 import new_sd3
from tests.support.tiny_sizes import TINY, tiny_models


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "tera"),
    [
        (ENCODE, 2.16),
        (PREFIX, 1.18),
        (SUFFIX, 1.78),
        (DECODE, 8.37),
        (CLIP, 0.38),
        (PREVIEW, 0.95),
        (scoring_stage("hidden"), 0.91),
        (scoring_stage("latent"), 0.91),
        (scoring_stage("clip"), 0.52),
        (scoring_stage("preview"), 0.52),
    ],
)
def test_flops_of_the_published_models(stage: str, tera: float) -> None:
    assert published_costs()[stage].flops / TERA == pytest.approx(tera, rel=0.03)


@pytest.mark.slow
def test_weights_that_are_read_of_the_published_models() -> None:
    """Gemma-2-2b looks up a few rows of its 590 M of embeddings; Qwen2.5 reads all of its own, as output layer."""
    millions = {stage: round(cost.weight_bytes / 2 / 1e6) for stage, cost in published_costs().items()}
    assert millions[ENCODE] == pytest.approx(2614 - 590, abs=1)
    assert millions[scoring_stage("hidden")] == pytest.approx(494 + 3, abs=1)
    assert millions[PREFIX] + millions[SUFFIX] == pytest.approx(1610, abs=1)
    assert millions[DECODE] < 312 / 1.9, "of the autoencoder the half that decodes"


def test_a_batch_costs_as_much_as_its_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch)
    for stage, cost in models.costs.items():
        batch = 1 if stage == ENCODE else 3
        assert count_flops(models.workload(stage, batch)) == batch * cost.flops, stage


def test_nothing_is_counted_differently_on_the_meta_device(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch)
    weightless = random_models("tiny", KINDS, None, torch.device("meta"), torch.float32)
    assert weightless.costs == models.costs
    assert weightless.padded_costs == models.padded_costs


READS = {"hidden": "hidden:2", "latent": "latent", "clip": "clip"}
GENERATORS: dict[str, tuple[Callable[[], Any], dict[str, Any], int]] = {
    "flux": (new_flux, {"max_sequence_length": TEXT_TOKENS}, 2),
    "flux2": (new_flux2, {"max_sequence_length": TEXT_TOKENS}, 1),
    "pixart": (new_pixart, {}, 1),
    "sd3": (new_sd3, {"max_sequence_length": TEXT_TOKENS}, 2),
}


def tiny_generator_of(name: str) -> StepwiseGenerator:
    new_pipeline, options, _ = GENERATORS[name]
    return as_generator(new_pipeline(), name, options)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "flux" in name else ()) for name in GENERATORS]
)
def test_every_generator_is_counted_stage_by_stage(name: str) -> None:
    """The stages of a search add up to the search."""
    generator, steps = tiny_generator_of(name), GENERATORS[name][2]
    sampling = generator.defaults.model_copy(update={"steps": steps, "height": 32, "width": 32})
    verifiers = {kind: new_verifier(TINY.verifier, reads, generator) for kind, reads in READS.items()}
    models = ProfiledModels(generator, verifiers, PROMPT, sampling)
    later_steps = [LATER_STEPS] if steps > 1 else []
    generation = [ENCODE, PREFIX, SUFFIX, *later_steps, DECODE]
    assert list(models.costs) == [
        *generation,
        scoring_stage("hidden"),
        scoring_stage("latent"),
        CLIP,
        scoring_stage("clip"),
    ]
    for stage, cost in models.costs.items():
        assert cost.flops > 0, stage
        assert cost.weight_bytes > 0, stage
    blocks = [models.costs[PREFIX].flops, models.costs[SUFFIX].flops]
    assert 0.2 < blocks[0] / sum(blocks) < 0.8, "the verifier reads after half of the blocks"
    read_once = sum(models.costs[stage].weight_bytes for stage in (ENCODE, PREFIX, SUFFIX, DECODE))
    assert read_once < models.weight_bytes("hidden"), "embeddings and the encoder of images are not read"
    # The connector counts for each beam of the release, which is much at this size.
    for strategy_class, kind, tolerance in (
        (Forejudge, "hidden", 0.002),
        (Forejudge, "latent", 0.002),
        (Official, "hidden", 0.02),
    ):
        strategy = strategy_class(models, kind, max_batch_size=2)
        counted = count_flops(partial(strategy.run, (3, 1, 4)))
        assert counted == pytest.approx(strategy.flops(3), rel=tolerance), (strategy_class, kind)
