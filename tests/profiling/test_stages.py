"""Operations and weights of stages: those of the published models, and those of a model that is really run."""

import pytest

from forejudge.profiling.measure import count_flops
from forejudge.profiling.models import scoring_stage
from forejudge.profiling.profile import StageWorkloads
from forejudge.profiling.stages import CLIP, DECODE, ENCODE, PREFIX, SUFFIX
from tests.support.published_costs import TERA, published_costs
from tests.support.tiny_sizes import tiny_models


@pytest.mark.parametrize(
    ("stage", "tera"),
    [
        (ENCODE, 2.16),
        (PREFIX, 1.18),
        (SUFFIX, 1.78),
        (DECODE, 8.37),
        (CLIP, 0.38),
        (scoring_stage("hidden"), 0.91),
        (scoring_stage("latent"), 0.91),
        (scoring_stage("clip"), 0.52),
    ],
)
def test_the_operations_of_the_published_models(stage: str, tera: float) -> None:
    assert published_costs()[stage].flops / TERA == pytest.approx(tera, rel=0.03)


def test_the_weights_that_must_be_read() -> None:
    """Gemma-2-2b looks up a few rows of its 590 M of embeddings; Qwen2.5 reads all of its own, as output layer."""
    costs = {stage: round(cost.weights / 1e6) for stage, cost in published_costs().items()}
    assert costs[ENCODE] == pytest.approx(2614 - 590, abs=1)
    assert costs[scoring_stage("hidden")] == pytest.approx(494 + 3, abs=1)
    assert costs[PREFIX] + costs[SUFFIX] == pytest.approx(1610, abs=1)
    assert costs[DECODE] < 312 / 1.9, "of the autoencoder the half that draws"


def test_what_is_counted_is_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch)
    workloads = StageWorkloads(models)
    for stage, cost in models.costs.items():
        batch = 1 if stage == ENCODE else 3
        assert count_flops(workloads.of(stage, batch)) == batch * cost.flops, stage
