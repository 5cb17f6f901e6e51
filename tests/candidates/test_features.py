"""Recorded and recomputed states, equal for training, and channel statistics."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from forejudge.candidates.features import DerivedStates, RecomputedStates, RecordedStates, channel_statistics, half
from forejudge.candidates.store import CandidateStore
from forejudge.errors import CheckpointError
from forejudge.generators import load_generator
from forejudge.progress import Shard, ignore_progress
from forejudge.training.dataset import StoredRows
from forejudge.verifiers.inputs import build_verifier_input
from tests.support.stand_in import FIVE_PROMPTS, SeedGenerator, candidate_collector
from tests.support.tiny_preview import tiny_preview
from tests.support.tiny_run import CPU, TinyRun


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> CandidateStore:
    """250 rows of three prompts in three blocks; one prompt comes again in each of them."""
    rows = CandidateStore(tmp_path_factory.mktemp("rows"))
    candidate_collector(FIVE_PROMPTS).run(rows, Shard(), ignore_progress)
    return rows


def test_rows_are_found_in_every_block_and_in_the_order_asked_for(folder: CandidateStore) -> None:
    rows = [249, 0, 100, 99, 120, 0]
    every = torch.cat([load_file(folder.states_path(block))["hidden:3"] for block in range(3)])
    found = RecordedStates(folder, "hidden:3").tokens(rows)
    assert found.dtype == torch.float16
    assert torch.equal(found, every[rows])


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [249, 60, 0, 149, 61, 100, 0, 248]])
def test_recomputed_states_keep_the_order_where_prompts_repeat(folder: CandidateStore, rows: list[int]) -> None:
    table = folder.table()
    prompts, seeds = table["prompt"].to_pylist(), table["seed"].to_pylist()
    anew = RecomputedStates(SeedGenerator(), build_verifier_input("hidden:3"), prompts, seeds)
    assert torch.equal(anew.tokens(rows), RecordedStates(folder, "hidden:3").tokens(rows))


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_a_generator_recomputes_what_was_recorded(tiny_run: TinyRun, dtype: torch.dtype, tmp_path: Path) -> None:
    """Within what another batch size does to its sums: a thousandth in float32, a hundredth in bfloat16."""
    from tests.support.tiny_run import collect

    generator = load_generator(str(tiny_run.folder / "generator"), CPU, dtype)
    rows = StoredRows.of(collect(tmp_path / "rows", generator, "training", prompts=3), generator)
    verifier_input = build_verifier_input("hidden:2")
    recorded = rows.states(generator, verifier_input)
    anew = RecomputedStates(generator, verifier_input, rows.prompts, rows.column("seed"))
    assert isinstance(recorded, RecordedStates)
    wanted = [11, 0, 5, 4, 9]
    assert recorded.tokens(wanted).dtype == anew.tokens(wanted).dtype
    tolerance = 1e-3 if dtype == torch.float32 else 2e-2
    difference = (recorded.tokens(wanted).float() - anew.tokens(wanted).float()).norm()
    assert difference < tolerance * recorded.tokens(wanted).float().norm()


def test_batches_are_all_rows_in_full_precision(folder: CandidateStore) -> None:
    states = RecordedStates(folder, "hidden:1")
    rows = list(range(150))
    batches = list(states.batches(rows, size=64))
    assert [len(batch) for batch in batches] == [64, 64, 22]
    assert torch.equal(torch.cat(batches), states.tokens(rows).float())


def test_a_verifier_input_that_was_not_recorded_is_refused(folder: CandidateStore) -> None:
    with pytest.raises(CheckpointError, match="holds no states of hidden:2, only hidden:1, hidden:3"):
        RecordedStates(folder, "hidden:2")


def test_states_that_were_not_recorded_are_recomputed(folder: CandidateStore) -> None:
    rows, generator = StoredRows.of(folder.path, SeedGenerator()), SeedGenerator()
    assert isinstance(rows.states(generator, build_verifier_input("hidden:2")), RecomputedStates)
    assert isinstance(rows.states(generator, build_verifier_input("hidden:3")), RecordedStates)


def test_previews_are_derived_from_recorded_latents(tmp_path: Path) -> None:
    """Also those of some rows alone, as where a fifth of the prompts is held out."""
    store, generator = CandidateStore(tmp_path / "rows"), SeedGenerator()
    candidate_collector(candidates=2, record=("latent",)).run(store, Shard(), ignore_progress)
    latents, preview = load_file(store.states_path(0))["latent"], tiny_preview(tmp_path)
    every = half(preview.derive(latents, None))
    whole = StoredRows.of(store.path, generator)
    states = whole.states(generator, preview)
    assert isinstance(states, DerivedStates)
    torch.testing.assert_close(states.tokens([7, 0, 3]), every[[7, 0, 3]], atol=1e-3, rtol=1e-3)
    for part in whole.split(0.3):
        rows = list(part.selection or ())
        found = part.states(generator, preview).tokens(range(len(rows)))
        torch.testing.assert_close(found, every[rows], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e5])
def test_states_that_half_precision_does_not_hold_are_refused(value: float) -> None:
    with pytest.raises(CheckpointError, match="beyond float16's range: run the generator in bfloat16"):
        half(torch.tensor([1.0, value]))
    assert half(torch.tensor([1.0, 1e5], dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("sizes", [[7], [1, 1, 5], [3, 4]])
def test_batches_of_any_size_give_the_statistics_of_the_whole(sizes: list[int]) -> None:
    states = torch.randn(7, 4, 3, generator=torch.Generator().manual_seed(0)) * 5 + 100
    mean, variance = channel_statistics(states.split(sizes))
    torch.testing.assert_close(mean, states.double().mean(dim=(0, 1)).float())
    torch.testing.assert_close(variance, states.double().var(dim=(0, 1), correction=0).float())


def test_no_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        channel_statistics([])
