"""Labeled candidates: resuming after a kill, shards, and what is refused before a run begins."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from forejudge.candidates.collect import CandidateCollector
from forejudge.candidates.features import RecomputedStates, RecordedStates
from forejudge.candidates.store import CandidateStore
from forejudge.errors import BrokenImage, InvalidRequest, MismatchError, OutputError
from forejudge.generators import load_generator
from forejudge.generators.base import SamplingParams
from forejudge.noise import candidate_seed, split_seed
from forejudge.progress import Progress, Shard, ignore_progress
from forejudge.training.dataset import QuestionBatches, QuestionTokens, StoredRows
from forejudge.training.model import Verification, log_odds
from forejudge.types import Candidates
from forejudge.verifiers.inputs import build_verifier_input
from forejudge.verifiers.language_model import LanguageModelVerifier
from tests.support.killed_collection import MOMENTS
from tests.support.stand_in import (
    FIVE_PROMPTS,
    MANY_PROMPTS,
    REJECTED_PROMPT,
    SeedGenerator,
    candidate_collector,
    prompt_lines,
)
from tests.support.tiny import save_tiny_verifier

CPU = torch.device("cpu")
WHOLE = Shard()


def collect(folder: Path, collector: CandidateCollector, shard: Shard = WHOLE) -> CandidateStore:
    rows = CandidateStore(folder)
    collector.run(rows, shard, ignore_progress)
    return rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> CandidateStore:
    """The store of a run that nothing stopped."""
    return collect(tmp_path_factory.mktemp("whole") / "rows", candidate_collector())


def states(folder: CandidateStore) -> dict[str, torch.Tensor]:
    blocks = [load_file(folder.states_path(block)) for block in range(folder.settings.blocks)]
    return {name: torch.cat([block[name] for block in blocks]) for name in folder.settings.recorded}


def assert_stores_equal(folder: CandidateStore, whole: CandidateStore) -> None:
    assert folder.table().equals(whole.table())
    expected = states(whole)
    assert all(torch.equal(found, expected[name]) for name, found in states(folder).items())


def test_a_row_says_how_to_generate_it_again(whole: CandidateStore) -> None:
    table: pa.Table = whole.table()
    assert table.num_rows == 250
    row = table.to_pylist()[137]
    seed = candidate_seed(split_seed("training", 7), "a star", 1, 37)
    assert row == {
        "prompt": "a star",
        "metadata": FIVE_PROMPTS[2].metadata,
        "image_index": 1,
        "index": 37,
        "seed": seed,
        "correct": seed % 256 % 2 == 0,
        "reason": f"blue {seed % 256}",
        "detections": "[]",
        "generator": "stand-in",
        "revision": "f00d",
        "observer_name": "even",
    }


def test_an_image_that_is_not_finite_stops_the_run_by_prompt_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = candidate_seed(split_seed("training", 7), "a disc", 0, 3)
    collector = candidate_collector()
    draw = SeedGenerator._images
    monkeypatch.setattr(
        SeedGenerator,
        "_images",
        lambda self, seeds: tuple(None if seed == broken else draw((seed,))[0] for seed in seeds),
    )
    with pytest.raises(
        BrokenImage, match=f"prompt 'a disc': the image of seed {broken} has values that are not finite"
    ):
        collect(tmp_path, collector)


def test_a_repeated_prompt_is_its_next_image(whole: CandidateStore) -> None:
    table: pa.Table = whole.table()
    assert table["image_index"].to_pylist()[::50] == [0, 0, 1, 0, 2]
    assert len(set(table["seed"].to_pylist())) == 250


def test_shards_together_are_one_run(tmp_path: Path, whole: CandidateStore) -> None:
    first = collect(tmp_path / "rows", candidate_collector(), Shard(1, 2))
    assert first.missing == [1]
    written = first.rows_path(0).stat().st_mtime_ns
    second = collect(tmp_path / "rows", candidate_collector(), Shard(2, 2))
    assert second.rows_path(0).stat().st_mtime_ns == written
    assert_stores_equal(second, whole)


def test_shards_of_another_split_make_what_is_left(tmp_path: Path, whole: CandidateStore) -> None:
    for shard in (Shard(2, 2), Shard(1, 3), Shard(2, 3), Shard(3, 3)):
        store = collect(tmp_path / "rows", candidate_collector(), shard)
    assert_stores_equal(store, whole)


def test_the_batch_size_changes_nothing(tmp_path: Path, whole: CandidateStore) -> None:
    other = CandidateCollector(**{**vars(candidate_collector()), "batch_size": 3})
    assert_stores_equal(collect(tmp_path / "rows", other), whole)


def test_progress_counts_the_rows_that_were_there_before(tmp_path: Path) -> None:
    collect(tmp_path / "rows", candidate_collector(), Shard(1, 3))
    told: list[Progress] = []
    candidate_collector().run(CandidateStore(tmp_path / "rows"), Shard(), told.append)
    assert [(progress.step, progress.steps) for progress in told] == [(200, 250), (250, 250)]
    assert all(progress.note.endswith("images/s") for progress in told)


def test_a_prompt_the_generator_refuses_is_named_before_anything_is_generated(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"prompts\.jsonl, line 3: the prompt has too many words"):
        collect(tmp_path / "rows", candidate_collector(prompt_lines("a star", "a disc", REJECTED_PROMPT)))
    assert not (tmp_path / "rows").exists(), "the same folder takes the corrected prompts"


def test_other_prompts_are_refused(whole: CandidateStore) -> None:
    with pytest.raises(InvalidRequest, match=r"begun with other prompts: 1 are gone, .*; 1 are new, such as "):
        collect(whole.path, candidate_collector([*FIVE_PROMPTS[:4], *prompt_lines("a hexagon")]))


def test_states_take_the_announced_bytes(whole: CandidateStore) -> None:
    stored = sum(tensor.nbytes for tensor in states(whole).values())
    assert candidate_collector().recorded_bytes == stored
    assert candidate_collector(record=()).recorded_bytes == 0


def test_a_disk_that_is_too_small_is_found_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free=10_000))
    with pytest.raises(OutputError, match=r"states to be recorded take 0\.0 MB and 0\.0 MB are free"):
        collect(tmp_path / "rows", candidate_collector())
    assert collect(tmp_path / "rows", candidate_collector(record=())).complete, "the same folder takes what needs less"


def test_a_verifier_input_that_the_generator_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="after 9 blocks"):
        collect(tmp_path / "rows", candidate_collector(record=["hidden:9"]))
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize(
    "moment", ["evaluating", *(pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS[1:])]
)
def test_a_killed_run_continues_and_ends_the_same(
    repository: Path, tmp_path: Path, whole: CandidateStore, moment: str
) -> None:
    killed = start(repository, tmp_path / "rows", moment)
    assert killed.wait(timeout=600) == -signal.SIGKILL
    folder = CandidateStore(tmp_path / "rows")
    assert folder.missing == [1, 2]
    assert_stores_equal(collect(folder.path, candidate_collector()), whole)


@pytest.mark.slow
def test_twenty_kills_at_any_moment_lose_nothing(repository: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    whole = collect(tmp_path / "whole", candidate_collector(MANY_PROMPTS))
    took, moments, done = time.monotonic() - started, random.Random(0), 0
    for number in range(20):
        folder = tmp_path / str(number)
        run = start(repository, folder, "any")
        while not (folder / "settings.json").exists() and run.poll() is None:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, took))
        run.kill()
        run.wait(timeout=600)
        done += len(list(folder.glob("rows/*.parquet")))
        assert_stores_equal(collect(folder, candidate_collector(MANY_PROMPTS)), whole)
    assert 0 < done < 20 * whole.settings.blocks, "kills must come while blocks are collected"


def start(repository: Path, folder: Path, moment: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "tests.support.killed_collection", str(folder), moment]
    return subprocess.Popen(command, cwd=repository)


def test_recorded_states_equal_recomputed_ones(tiny_generator: Path, tmp_path: Path) -> None:
    generator = load_generator(str(tiny_generator), CPU, torch.float32)
    lines = prompt_lines("a photo of a red circle", "a photo of two stars", "a photo of a red circle")
    verifier_inputs = [build_verifier_input("hidden:2"), build_verifier_input("latent")]
    collector = CandidateCollector(
        generator, lines, 3, 0, candidate_collector().observer, verifier_inputs, batch_size=2
    )
    folder = collect(tmp_path / "rows", collector)
    table: pa.Table = folder.table()
    prompts, seeds = table["prompt"].to_pylist(), table["seed"].to_pylist()
    rows = [8, 0, 4, 3]
    for verifier_input in verifier_inputs:
        recorded = RecordedStates(folder, verifier_input.name).tokens(rows)
        anew = RecomputedStates(generator, verifier_input, prompts, seeds).tokens(rows)
        assert recorded.dtype == torch.float16
        torch.testing.assert_close(recorded, anew, atol=2e-3, rtol=2e-3)


@torch.no_grad()
def test_a_training_reads_the_grid_of_images_that_are_no_square(tiny_generator: Path, tmp_path: Path) -> None:
    """4 rows of 16 tokens, recorded or recomputed; stage 2 merges the neighbors that the verifier merges."""
    generator = load_generator(str(tiny_generator), CPU, torch.float32)
    generator.defaults = SamplingParams(height=32, width=128)
    inputs = [build_verifier_input("hidden:2"), build_verifier_input("latent")]
    lines = prompt_lines("a photo of a red circle")
    store = collect(
        tmp_path / "rows", CandidateCollector(generator, lines, 3, 0, candidate_collector().observer, inputs)
    )
    rows = StoredRows.of(store.path, generator)
    for verifier_input in inputs:
        anew = RecomputedStates(generator, verifier_input, rows.prompts, rows.column("seed"))
        assert rows.states(generator, verifier_input).grid == anew.grid == (4, 16)

    folder = save_tiny_verifier(tmp_path / "verifier", tiny_generator, 2, merge_size=2)
    verifier = LanguageModelVerifier.from_pretrained(folder)
    states = rows.states(generator, verifier.verifier_input)
    batch = QuestionBatches(states, QuestionTokens(verifier.question), rows.prompts, [True] * 3)([0, 1, 2])
    del batch["labels"]
    answers = Verification(verifier.model, verifier.question.answer_token_ids())(**batch)["logprobs"]
    stage = verifier.verifier_input.stage
    candidates = Candidates((0, 1, 2), stage, {stage: states.tokens([0, 1, 2]).float()}, None, (4, 16))
    expected = [verdict.score for verdict in verifier.score(rows.prompts[0], candidates)]
    assert log_odds(answers).tolist() == pytest.approx(expected, abs=1e-5)
    as_square = verifier.score(rows.prompts[0], replace(candidates, grid=None))
    assert [verdict.score for verdict in as_square] != pytest.approx(expected, abs=1e-4)
