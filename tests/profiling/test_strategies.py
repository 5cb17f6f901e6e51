"""Ways to pick the best of N: they draw the same candidates, and do as much as they say."""

import numpy as np
import pytest
from tests.doubles import FakeTime
from tests.profiling.published_costs import TERA, published_costs
from tests.profiling.tiny_sizes import tiny_models
from torch._dynamo.testing import CompileCounter

from forejudge.draw import Drawing
from forejudge.profiling.flops import count_flops
from forejudge.profiling.official import Official
from forejudge.profiling.profiled import Profiled, judging_stage
from forejudge.profiling.stage_costs import CLIP, DECODE, ENCODE, PREFIX, SUFFIX
from forejudge.profiling.stage_runs import StageRun, total_flops
from forejudge.profiling.strategies import DecodeAll, Forejudge, Strategy

SEEDS = (3, 1, 4)
WAYS: list[tuple[type[Strategy], str]] = [
    (Official, "hidden"),
    (Official, "clip"),
    (Official, "latent"),
    (DecodeAll, "clip"),
    (Forejudge, "hidden"),
    (Forejudge, "latent"),
]


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Profiled:
    """Tiny ones."""
    return tiny_models(monkeypatch)


@pytest.mark.parametrize(("way", "kind"), WAYS)
def test_each_picks_one_and_finishes_it(models: Profiled, way: type[Strategy], kind: str) -> None:
    strategy = way(models, kind, most=2)
    picked = strategy.run(SEEDS)
    alone = strategy.run((SEEDS[picked.winner],))
    assert picked.picture.size == (64, 64)
    assert np.abs(pixels(picked.picture) - pixels(alone.picture)).max() <= 1, "rounding may differ with the batch"


def test_memory_is_counted_on_what_is_not_compiled(models: Profiled, traced: CompileCounter) -> None:
    compiled = models.compiled()
    fast = Forejudge(compiled, "hidden", most=1)
    assert (fast.models, fast.plain.models) == (compiled, models)
    assert (fast.verifier, fast.plain.verifier) == (compiled.verifiers["hidden"], models.verifiers["hidden"])
    assert Official(compiled, "hidden", most=1).models == models, "the release compiles nothing"


def test_all_draw_the_same_from_a_seed(models: Profiled) -> None:
    pictures = [pixels(way(models, kind, most=1).run((5,)).picture) for way, kind in WAYS]
    for picture in pictures[1:]:
        assert np.array_equal(picture, pictures[0])
    assert not np.array_equal(pixels(Forejudge(models, "hidden", most=1).run((6,)).picture), pictures[0])


@pytest.mark.parametrize(("way", "kind"), WAYS)
def test_each_does_as_much_as_it_says(models: Profiled, way: type[Strategy], kind: str) -> None:
    strategy = way(models, kind, most=2)
    assert count_flops(lambda: strategy.run(SEEDS)) == pytest.approx(strategy.flops(len(SEEDS)), rel=0.002)


def test_as_many_go_together_as_take_the_least_time_each(models: Profiled, monkeypatch: pytest.MonkeyPatch) -> None:
    time = FakeTime()
    monkeypatch.setattr("forejudge.profiling.stage_timing.perf_counter", time)
    judge = Drawing.judge
    took = {1: 10.0, 2: 14.0, 4: 32.0}  # 10, 7 and 8 for each

    def timed_judge(drawing: Drawing, seeds: tuple[int, ...]) -> object:
        time.passes(took[len(seeds)])
        return judge(drawing, seeds)

    monkeypatch.setattr(Drawing, "judge", timed_judge)
    assert DecodeAll(models, "clip", most=4).batch_size == 2


def test_a_last_batch_may_be_smaller_and_only_the_winner_is_finished(models: Profiled) -> None:
    strategy = Forejudge(models, "hidden", most=1)
    strategy.batch_size = 4
    judged = judging_stage("hidden")
    assert strategy.stage_runs(10) == [
        StageRun(ENCODE, 1),
        StageRun(PREFIX, 4, 2),
        StageRun(PREFIX, 2, 1),
        StageRun(judged, 4, 2),
        StageRun(judged, 2, 1),
        StageRun(SUFFIX, 1),
        StageRun(DECODE, 1),
    ]
    everything = {run.stage for run in DecodeAll(models, "clip", most=1).stage_runs(3) if run.times * run.batch == 3}
    assert everything == {PREFIX, SUFFIX, DECODE, CLIP, judging_stage("clip")}


@pytest.mark.parametrize(
    ("way", "kind", "one_more", "fixed"),
    [
        (Official, "hidden", 6.1, 13.5),
        (Official, "clip", 15.4, 13.5),
        (Official, "latent", 7.9, 13.5),
        (Forejudge, "hidden", 2.10, 12.3),
        (DecodeAll, "clip", 12.2, 2.16),
    ],
)
def test_teraflop_at_the_published_sizes(
    models: Profiled, way: type[Strategy], kind: str, one_more: float, fixed: float
) -> None:
    strategy = way(models, kind, most=1)
    first, second = (total_flops(strategy.stage_runs(n), published_costs()) / TERA for n in (1, 2))
    assert second - first == pytest.approx(one_more, rel=0.03)
    assert 2 * first - second == pytest.approx(fixed, rel=0.03)


def pixels(picture: object) -> np.ndarray:
    return np.asarray(picture).astype(int)
