"""Whole profiles of random and of loaded models, and what is refused."""

import itertools
from pathlib import Path

import pytest
import torch

from forejudge.best_of_n import BestOfN
from forejudge.errors import InvalidRequest
from forejudge.profiling.figures import Memory, Profile, StrategyProfile
from forejudge.profiling.models import load_profiled_models
from forejudge.profiling.profile import marginal_cost, profile, savings
from forejudge.profiling.sizes import KINDS, random_models
from forejudge.progress import Progress
from tests.support.doubles import CPU
from tests.support.tiny_sizes import tiny_models


def figures(strategy: str, verifier: str, cost: float, memory: int = 90) -> StrategyProfile:
    """Make a profile in which one more candidate costs `cost`."""
    costs = {n: cost * n for n in (1, 4)}
    return StrategyProfile(
        strategy=strategy,
        verifier=verifier,
        batch_size=1,
        flops={n: round(each) for n, each in costs.items()},
        measurements={},
        memory=Memory.from_peaks({1: memory, 4: memory, 8: memory}, {1: memory, 4: 2 * memory}, weights=10),
        marginal_cost=marginal_cost(
            costs, {n: round(each) for n, each in costs.items()}, {1: memory, 4: memory, 8: 9 * memory}
        ),
    )


def test_the_marginal_cost_is_the_slope_from_the_smallest_n_to_the_largest() -> None:
    found = marginal_cost({1: 30.0, 2: 35.0, 5: 70.0}, {1: 7, 2: 9, 5: 15}, {1: 100, 2: 101, 5: 140, 8: 999})
    assert found is not None
    assert (found.milliseconds, found.flops, found.bytes) == (10, 2, 10)
    assert marginal_cost({8: 30.0}, {8: 7}, {1: 1, 8: 100}) is None


def test_one_more_candidate_never_costs_less_than_nothing() -> None:
    """A strategy without a cost is not compared with, since every other one would save infinitely less."""
    found = marginal_cost({1: 30.0, 5: 29.0}, {1: 7, 5: 6}, {1: 100, 5: 90})
    assert found is not None
    assert (found.milliseconds, found.flops, found.bytes) == (0, 0, 0)
    free = figures("decode-all", "clip", 80).model_copy(update={"marginal_cost": found})
    assert savings([free, figures("forejudge", "hidden", 20)]) == ()
    (ours,) = savings([figures("decode-all", "clip", 80), figures("forejudge", "hidden", 0)])
    assert ours.milliseconds == 100


def test_ours_are_set_against_the_others_and_the_release_against_itself() -> None:
    found = savings(
        [
            figures("official", "hidden", 40, memory=40),
            figures("official", "clip", 100),
            figures("decode-all", "clip", 80),
            figures("forejudge", "hidden", 20, memory=15),
            figures("forejudge", "latent", 30),
        ]
    )
    times = {(saving.strategy, saving.baseline): saving.milliseconds for saving in found}
    assert times == pytest.approx(
        {
            ("official, hidden", "official, clip"): 60,  # the paper's own comparison
            ("forejudge, hidden", "official, hidden"): 50,
            ("forejudge, hidden", "official, clip"): 80,
            ("forejudge, hidden", "decode-all, clip"): 75,
            ("forejudge, latent", "official, clip"): 70,
            ("forejudge, latent", "decode-all, clip"): 62.5,
        }
    )
    (ours,) = [each for each in found if (each.strategy, each.baseline) == ("forejudge, hidden", "decode-all, clip")]
    assert ours.scoring_bytes == ours.end_to_end_bytes == pytest.approx(75), "25 of 100 bytes, weights included"


def test_memory_is_given_with_and_without_weights() -> None:
    memory = Memory.from_peaks({1: 5, 8: 40}, {1: 7}, weights=100)
    assert memory.scoring_with_weights == {1: 105, 8: 140}
    assert memory.end_to_end_with_weights == {1: 107}


PROMPT_STAGES = ["encode", "prefix", "suffix", "decode"]


@pytest.mark.slow
def test_everything_is_measured_and_fits_its_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    reported: list[Progress] = []
    found = profile(tiny_models(monkeypatch), [1, 2], 2, (), reported.append)
    assert Profile.model_validate_json(found.model_dump_json()) == found
    assert set(found.stages) == {*PROMPT_STAGES, "clip", "preview", *(f"language model, {kind}" for kind in KINDS)}
    assert list(found.stages["encode"].measurements) == [1]
    assert all(list(stage.measurements) == [1, 2] for name, stage in found.stages.items() if name != "encode")
    ways = {(each.strategy, each.verifier) for each in found.strategies}
    ours = {("forejudge", kind) for kind in ("hidden", "latent", "preview")}
    assert ways == {*(("official", kind) for kind in KINDS), ("decode-all", "clip"), *ours}
    measured = [at for stage in found.stages.values() for at in stage.measurements.values()]
    measured += [at for strategy_class in found.strategies for at in strategy_class.measurements.values()]
    assert all(at.roofline_ms > 0 and at.milliseconds.rounds == 2 for at in measured)
    assert found.settings.device_note.startswith("measured on a CPU")
    assert {"commit", "device", "torch"} <= found.provenance.keys()
    assert {progress.part for progress in reported} == {"timing stages", "timing strategies"}


@pytest.mark.slow
def test_memory_is_measured_for_scoring_eight_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = profile(tiny_models(monkeypatch, "hidden", "clip"), [2], 1, ("decode-all", "forejudge"), ignore)
    by_strategy = {each.strategy: each for each in found.strategies}
    for figures in by_strategy.values():
        assert list(figures.memory.scoring) == [1, 2, 8]
        assert list(figures.memory.end_to_end) == [2]
        assert figures.marginal_cost is None, "one N has no slope"
    assert by_strategy["forejudge"].memory.scoring[1] < by_strategy["decode-all"].memory.scoring[1]
    assert found.savings == ()


def test_a_loaded_generator_is_measured_with_its_own_verifier(tiny_generator: Path, tiny_verifier: Path) -> None:
    models = load_profiled_models(str(tiny_generator), [str(tiny_verifier)], None, CPU, torch.float32)
    found = profile(models, [1], 1, (), ignore)
    assert [(each.strategy, each.verifier) for each in found.strategies] == [
        ("official", "hidden"),
        ("forejudge", "hidden"),
    ]
    assert found.settings.num_prefix_blocks == 2


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that advances 50 ms between any two readings."""
    readings = itertools.count()
    for module in ("forejudge.session", "forejudge.profiling.searches"):
        monkeypatch.setattr(f"{module}.perf_counter", lambda: 0.05 * next(readings))


@pytest.mark.usefixtures("slow_clock")
def test_budgets_are_met_by_the_first_verifier_before_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch, "clip", "hidden")
    monkeypatch.setattr("forejudge.profiling.profile.SEARCHES_PER_BUDGET", 3)
    (adherence,) = profile(models, [1], 1, ("forejudge",), ignore, budgets_ms=[2000]).deadline_adherence
    assert (adherence.budget_ms, adherence.runs) == (2000, 3)
    assert adherence.median_predicted_n >= 1


@pytest.mark.usefixtures("slow_clock")
def test_a_budget_in_which_nothing_fits_is_refused_before_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(progress: Progress) -> None:
        pytest.fail("something was measured")

    with pytest.raises(InvalidRequest, match="budget_ms = 1 is too small"):
        profile(tiny_models(monkeypatch, "hidden"), [1], 1, ("forejudge",), fail, budgets_ms=[1])


def test_a_budget_without_a_verifier_of_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InvalidRequest, match="--budget-ms needs a verifier that reads hidden, latent or preview: name one"
    ):
        profile(tiny_models(monkeypatch, "clip"), [1], 1, ("decode-all",), ignore, budgets_ms=[1000])


def test_a_strategy_without_a_verifier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="strategy decode-all needs a verifier that reads clip: name one"):
        profile(tiny_models(monkeypatch, "hidden"), [1], 1, ("decode-all",), ignore)


@pytest.mark.parametrize(
    ("verifiers", "said"),
    [
        (["VERIFIER", "VERIFIER"], "both read hidden: leave one out"),
        (["tests.support.scorer:first_pixel"], "has no language model: profile one that has"),
    ],
)
def test_verifiers_that_cannot_be_measured_are_refused(
    verifiers: list[str], said: str, tiny_generator: Path, tiny_verifier: Path
) -> None:
    named = [name.replace("VERIFIER", str(tiny_verifier)) for name in verifiers]
    with pytest.raises(InvalidRequest, match=said):
        load_profiled_models(str(tiny_generator), named, None, CPU, torch.float32)


@pytest.mark.gpu
def test_the_small_models_on_a_gpu() -> None:
    models = random_models("sana-sprint-small", KINDS, None, torch.device("cuda"), torch.bfloat16)
    found = profile(models, [1, 8], 3, (), ignore)
    assert found.settings.device_note.startswith("measured on a GPU")
    assert len(found.strategies) == 6
    assert found.rates.flops_per_second > 1e12
    for figures in found.strategies:
        assert figures.memory.end_to_end[8] >= figures.memory.end_to_end[1] > 0


@pytest.mark.slow
def test_the_published_models_run_on_a_cpu() -> None:
    """Minutes, and 10 GiB of memory."""
    models = random_models("sana-sprint-1.6b", ("hidden",), None, CPU, torch.bfloat16)
    assert (models.conditioning.text_NLD.shape, models.num_prefix_blocks) == ((1, 300, 2304), 8)
    found = BestOfN(models.generator, models.verifiers["hidden"])(models.prompt, 1)
    assert found.image.size == (1024, 1024)
    assert models.weight_bytes("hidden") == pytest.approx(2 * (2.61e9 + 1.61e9 + 0.31e9 + 0.49e9), rel=0.01)


def ignore(progress: Progress) -> None:
    """Ignore progress."""
