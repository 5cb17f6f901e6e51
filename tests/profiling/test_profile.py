"""A whole profile: of models of random weights, of loaded ones, and what cannot be measured."""

from pathlib import Path

import pytest
import torch
from tests.doubles import CPU
from tests.profiling.tiny_sizes import tiny_models

from forejudge.best_of_n import BestOfN
from forejudge.errors import InvalidRequest
from forejudge.generators.base import Sampling
from forejudge.profiling.profile import profile
from forejudge.profiling.profile_figures import Profile
from forejudge.profiling.profiled import load_profiled
from forejudge.profiling.random_models import KINDS, random_models
from forejudge.progress import Progress

PROMPT_STAGES = ["encode", "prefix", "suffix", "decode"]


def test_everything_is_measured_and_fits_its_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Progress] = []
    found = profile(tiny_models(monkeypatch), [1, 2], 2, (), told.append)
    assert Profile.model_validate_json(found.model_dump_json()) == found
    assert set(found.stages) == {*PROMPT_STAGES, "clip", *(f"language model, {kind}" for kind in KINDS)}
    assert list(found.stages["encode"].at) == [1]
    assert all(list(stage.at) == [1, 2] for name, stage in found.stages.items() if name != "encode")
    ways = {(each.strategy, each.verifier) for each in found.strategies}
    ours = {("forejudge", "hidden"), ("forejudge", "latent")}
    assert ways == {*(("official", kind) for kind in KINDS), ("decode-all", "clip"), *ours}
    measured = [at for stage in found.stages.values() for at in stage.at.values()]
    measured += [at for way in found.strategies for at in way.at.values()]
    assert all(at.floor_milliseconds > 0 and at.milliseconds.rounds == 2 for at in measured)
    assert found.settings.figures.startswith("of a CPU")
    assert {"commit", "device", "torch"} <= found.made.keys()
    assert {progress.part for progress in told} == {"timing stages", "timing strategies"}


def test_memory_is_measured_for_the_judged_eight_too(monkeypatch: pytest.MonkeyPatch) -> None:
    found = profile(tiny_models(monkeypatch, "hidden", "clip"), [2], 1, ("decode-all", "forejudge"), ignore)
    by_strategy = {each.strategy: each for each in found.strategies}
    for figures in by_strategy.values():
        assert list(figures.memory.judging) == [1, 2, 8]
        assert list(figures.memory.joint) == [2]
        assert figures.one_more is None, "one N has no slope"
    assert by_strategy["forejudge"].memory.judging[1] < by_strategy["decode-all"].memory.judging[1]
    assert found.savings == ()


def test_a_loaded_generator_is_measured_with_its_own_verifier(tiny_generator: Path, tiny_verifier: Path) -> None:
    models = load_profiled(str(tiny_generator), [str(tiny_verifier)], Sampling(), CPU, torch.float32)
    found = profile(models, [1], 1, (), ignore)
    assert [(each.strategy, each.verifier) for each in found.strategies] == [
        ("official", "hidden"),
        ("forejudge", "hidden"),
    ]
    assert found.settings.prefix_blocks == 2


def test_budgets_are_kept_by_a_search_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch, "clip", "hidden")
    monkeypatch.setattr("forejudge.profiling.profile.SEARCHES", 3)
    (kept,) = profile(models, [1], 1, ("forejudge",), ignore, budgets_ms=[500]).budgets
    assert (kept.budget_milliseconds, kept.runs) == (500, 3)
    assert kept.median_promised >= 1


def test_a_budget_in_which_nothing_fits_is_refused_before_all_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(progress: Progress) -> None:
        pytest.fail("something was measured")

    with pytest.raises(InvalidRequest, match="budget_ms = 1 is too small"):
        profile(tiny_models(monkeypatch, "hidden"), [1], 1, ("forejudge",), told, budgets_ms=[1])


def test_a_budget_without_a_verifier_of_ours_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="a time budget needs a verifier that reads hidden or latent: name one"):
        profile(tiny_models(monkeypatch, "clip"), [1], 1, ("decode-all",), ignore, budgets_ms=[1000])


def test_a_strategy_without_a_verifier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequest, match="strategy decode-all needs a verifier that reads clip: name one"):
        profile(tiny_models(monkeypatch, "hidden"), [1], 1, ("decode-all",), ignore)


@pytest.mark.parametrize(
    ("verifiers", "said"),
    [
        (["VERIFIER", "VERIFIER"], "both read hidden: leave one out"),
        (["tests.cli.scorer:first_pixel"], "has no language model: its work cannot be counted"),
    ],
)
def test_verifiers_that_cannot_be_measured_are_refused(
    verifiers: list[str], said: str, tiny_generator: Path, tiny_verifier: Path
) -> None:
    named = [name.replace("VERIFIER", str(tiny_verifier)) for name in verifiers]
    with pytest.raises(InvalidRequest, match=said):
        load_profiled(str(tiny_generator), named, Sampling(), CPU, torch.float32)


@pytest.mark.gpu
def test_the_small_models_on_a_gpu() -> None:
    models = random_models("sana-sprint-small", KINDS, Sampling(), torch.device("cuda"), torch.bfloat16)
    found = profile(models, [1, 8], 3, (), ignore)
    assert found.settings.figures.startswith("of a GPU")
    assert len(found.strategies) == 6
    assert found.rates.flops_per_second > 1e12
    for figures in found.strategies:
        assert figures.memory.joint[8] >= figures.memory.joint[1] > 0


@pytest.mark.slow
def test_the_published_models_run_on_a_cpu() -> None:
    """Minutes, and 10 GiB of memory."""
    models = random_models("sana-sprint-1.6b", ("hidden",), Sampling(), CPU, torch.bfloat16)
    assert (models.conditioning.text_NLD.shape, models.blocks) == ((1, 300, 2304), 8)
    found = BestOfN(models.generator, models.verifiers["hidden"])(models.prompt, 1)
    assert found.image.size == (1024, 1024)
    assert models.weight_bytes("hidden") == pytest.approx(2 * (2.61e9 + 1.61e9 + 0.31e9 + 0.49e9), rel=0.01)


def ignore(progress: Progress) -> None:
    """Nobody watches."""
