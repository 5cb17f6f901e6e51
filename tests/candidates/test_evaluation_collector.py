"""Evaluations: the files of their store, resuming after an interruption, shards and their merge."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import Image

from forejudge.candidates.collect import EvaluationCollector
from forejudge.candidates.evaluation_store import EvaluationStore
from forejudge.candidates.second_steps import doubtful_winners
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.evaluation.strategies import load_outcomes
from forejudge.evaluation.suite import merge_evaluation, with_controls
from forejudge.evaluators.base import Evaluation, Evaluator
from forejudge.evaluators.benchmarks import Benchmark, load_benchmark
from forejudge.generators import load_generator
from forejudge.miniature.evaluator import MiniatureEvaluator, miniature_benchmark
from forejudge.options import SamplingParams
from forejudge.progress import Progress, Shard, ignore_progress
from forejudge.prompts.prompt_file import PromptLine
from forejudge.types import IMAGE
from forejudge.verifiers import load_verifier

CPU = torch.device("cpu")
ALL = Shard()


class BrightIsRight(Evaluator):
    """Evaluator that calls an image right by its bytes, so that two images rarely agree by chance alone."""

    name = "bright"

    @staticmethod
    def says(image: Image) -> bool:
        return sum(image.tobytes()) % 2 == 0

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        return [Evaluation(self.says(image), "odd") for image in images]


@pytest.fixture(scope="module")
def evaluation(tiny_generator: Path, tiny_verifier: Path) -> EvaluationCollector:
    """Six prompts, two seeds, three candidates."""
    generator = load_generator(str(tiny_generator), CPU, torch.float32)
    verifiers = with_controls({"tiny": load_verifier(str(tiny_verifier), CPU, torch.float32)})
    return EvaluationCollector(generator, verifiers, miniature_benchmark(1), candidates=3, seeds=2)


@pytest.fixture(scope="module")
def collected(evaluation: EvaluationCollector, tmp_path_factory: pytest.TempPathFactory) -> EvaluationStore:
    folder = EvaluationStore(tmp_path_factory.mktemp("collected"))
    evaluation.run(folder, ALL, ignore_progress)
    return folder


def test_a_prompt_is_a_folder_as_geneval_lays_it_out(
    collected: EvaluationStore, evaluation: EvaluationCollector
) -> None:
    metadata = (collected.path / "00000" / "metadata.jsonl").read_text()
    assert metadata == evaluation.benchmark.lines[0].metadata + "\n"
    assert sorted(path.name for path in (collected.path / "00000" / "samples").iterdir()) == [
        "0000.png",
        "0001.png",
        "0002.png",
    ]
    assert sorted(path.name for path in collected.path.iterdir() if path.name.isdigit()) == [
        f"{at:05d}" for at in range(6)
    ]


def test_every_candidate_has_a_row(collected: EvaluationStore) -> None:
    rows = collected.rows(2)
    assert [(row["seed_index"], row["index"], row["sample"]) for row in rows] == [
        (0, 0, "0000.png"), (0, 1, "0001.png"), (0, 2, "0002.png"), (1, 0, None), (1, 1, None), (1, 2, None),
    ]  # fmt: skip
    assert len({row["seed"] for row in rows}) == 6
    for row in rows:
        assert set(row["verdicts"]) == {"tiny", "states shuffled", "states zeroed"}
        assert 0 < (row["verdicts"]["tiny"]["probability"] or 0) < 1
        assert row["correct"] or row["reason"]


def test_images_after_a_second_step_are_evaluated_too(
    evaluation: EvaluationCollector, collected: EvaluationStore, tmp_path: Path
) -> None:
    """They are the two-step images of the candidates' own seeds; all else is as without."""
    brightness = BrightIsRight()
    few = replace(evaluation.benchmark, lines=evaluation.benchmark.lines[:1], evaluator=brightness)
    store = EvaluationStore(tmp_path)
    replace(evaluation, benchmark=few, second_step=True).run(store, ALL, ignore_progress)
    rows, group = store.rows(0), few.groups(0, 1, 3)[0][0]
    (one,) = group.generate(evaluation.generator, [IMAGE], 16, SamplingParams(steps=1))
    (two,) = group.generate(evaluation.generator, [IMAGE], 16, SamplingParams(steps=2))
    by_seed = {row["seed"]: (row["correct"], row["second_step_correct"]) for row in rows}
    for seed, first, second in zip(group.seeds, one.images, two.images, strict=True):
        assert by_seed[seed] == (brightness.says(first), brightness.says(second))
    recorded = load_outcomes(store).second_step_correct_CSN
    assert recorded is not None
    assert recorded[0].tolist() == [[row["second_step_correct"] for row in rows[at : at + 3]] for at in (0, 3)]
    assert load_outcomes(collected).second_step_correct_CSN is None


def test_second_steps_below_a_probability_are_those_of_candidates_that_can_win(
    evaluation: EvaluationCollector, tmp_path: Path
) -> None:
    """They equal those of all candidates; second evaluators see them too."""
    few = replace(evaluation.benchmark, lines=evaluation.benchmark.lines[:1], evaluator=BrightIsRight())
    steps = replace(evaluation, benchmark=few, second_step=True, second_evaluators={"second": BrightIsRight()})
    stores = {name: EvaluationStore(tmp_path / name) for name in ("all", "some")}
    steps.run(stores["all"], ALL, ignore_progress)
    replace(steps, second_step_below=0.5).run(stores["some"], ALL, ignore_progress)
    whole, some = stores["all"].rows(0), stores["some"].rows(0)
    asked = doubtful_winners([row["verdicts"] for row in whole], 3, 0.5)
    assert 0 < len(asked) < len(whole)
    for index, (one, other) in enumerate(zip(whole, some, strict=True)):
        expected = one["second_step_correct"] if index in asked else None
        assert other["second_step_correct"] is expected
        assert other["second_step_second_correct"] == (None if expected is None else {"second": expected})
    seen = load_outcomes(stores["some"])
    assert seen.second_step_correct_CSN is not None
    assert np.isfinite(seen.second_step_correct_CSN).sum() == len(asked)
    assert np.array_equal(seen.second_step_second_correct_CSN["second"], seen.second_step_correct_CSN, equal_nan=True)


def test_damaged_metadata_changes_no_outcome_and_a_damaged_row_is_named(
    collected: EvaluationStore, tmp_path: Path
) -> None:
    """The rows hold the metadata too, with a checksum; GenEval's file is for other readers."""
    folder = EvaluationStore(copytree(collected.path, tmp_path / "copy"))
    folder.images(3).metadata_path.write_text('{"tag": "col')
    assert load_outcomes(folder).tasks == load_outcomes(collected).tasks
    content = bytearray(folder.rows_path(3).read_bytes())
    content[len(content) // 2] ^= 1
    folder.rows_path(3).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"rows/00003\.parquet is damaged .* run the command that wrote it again"):
        load_outcomes(folder)


@pytest.mark.parametrize("number", [-1, 0, 10**23])
def test_impossible_numbers_in_the_settings_are_named(collected: EvaluationStore, tmp_path: Path, number: int) -> None:
    settings = json.loads((collected.path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(settings | {"prompts": number}))
    with pytest.raises(CheckpointError, match=r"settings\.json: prompts = "):
        load_outcomes(EvaluationStore(tmp_path))


def test_outcomes_are_the_rows_as_arrays(collected: EvaluationStore) -> None:
    found = load_outcomes(collected)
    assert found.correct_CSN.shape == found.score_CSN["tiny"].shape == (6, 2, 3)
    row = collected.rows(4)[5]
    assert found.score_CSN["tiny"][4, 1, 2] == row["verdicts"]["tiny"]["score"]
    assert found.correct_CSN[4, 1, 2] == row["correct"]
    assert len(set(found.tasks)) == 6


def test_shuffling_moves_scores_and_zeroing_makes_them_equal(collected: EvaluationStore) -> None:
    found = load_outcomes(collected)
    names = ("tiny", "states shuffled", "states zeroed")
    own, shuffled, zeroed = (np.sort(found.score_CSN[name].reshape(6, -1)) for name in names)
    np.testing.assert_allclose(own, shuffled, atol=1e-5)
    np.testing.assert_allclose(zeroed, np.broadcast_to(zeroed[..., :1], zeroed.shape), atol=1e-5)


def test_a_stopped_run_continues_and_loses_no_finished_prompt(evaluation: EvaluationCollector, tmp_path: Path) -> None:
    folder = EvaluationStore(tmp_path)

    def stop(progress: Progress) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluation.run(folder, ALL, stop)
    assert folder.missing == [4, 5]
    with pytest.raises(CheckpointError, match="2 of its 6 prompts are missing"):
        load_outcomes(folder)
    folder.images(4).write("{}", [])  # what a kill leaves
    steps: list[int] = []
    evaluation.run(folder, ALL, lambda progress: steps.append(progress.step))
    assert steps == [5, 6]
    assert folder.missing == []


def test_shards_merge_to_the_same_rows_as_one_run(
    evaluation: EvaluationCollector, collected: EvaluationStore, tmp_path: Path
) -> None:
    for number in (1, 2):
        evaluation.run(EvaluationStore(tmp_path / str(number)), Shard(number, 2), ignore_progress)
    assert merge_evaluation(tmp_path / "1", tmp_path / "2") == 3
    merged = EvaluationStore(tmp_path / "1")
    assert [merged.rows(prompt) for prompt in range(6)] == [collected.rows(prompt) for prompt in range(6)]
    assert merge_evaluation(tmp_path / "1", tmp_path / "2") == 0


def test_merging_mends_metadata_and_names_a_damaged_image(
    evaluation: EvaluationCollector, collected: EvaluationStore, tmp_path: Path
) -> None:
    part = EvaluationStore(copytree(collected.path, tmp_path / "part"))
    part.images(3).metadata_path.write_text('{"tag": "col')
    merged = EvaluationStore(tmp_path / "merged")
    merged.begin(evaluation.settings)
    assert merge_evaluation(merged.path, part.path) == 6
    for prompt in range(6):
        assert merged.images(prompt).metadata == collected.images(prompt).metadata
        for row in merged.rows(prompt)[:3]:
            assert merged.sample(prompt, row).read_bytes() == collected.sample(prompt, row).read_bytes()

    merged.rows_path(3).unlink()
    image = part.images(3).sample_path(1)
    content = bytearray(image.read_bytes())
    content[-20] ^= 1  # of the checksum: decoding alone does not notice
    image.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"part/00003/samples/0001\.png is damaged .* run the command that wrote it"
    ):
        merge_evaluation(merged.path, part.path)
    assert merged.missing == [3]


@pytest.mark.parametrize("field", ["seeds", "candidates", "images_per_prompt"])
def test_other_settings_are_refused_by_name(
    evaluation: EvaluationCollector, collected: EvaluationStore, field: str
) -> None:
    change: Any = {field: getattr(evaluation, field) + 1}
    other = replace(evaluation, **change)
    with pytest.raises(InvalidRequest, match=f"was begun with {field} = "):
        other.run(collected, ALL, ignore_progress)


def test_other_verifiers_are_refused(evaluation: EvaluationCollector, collected: EvaluationStore) -> None:
    other = replace(evaluation, verifiers={})
    with pytest.raises(InvalidRequest, match="was begun with verifiers = "):
        other.run(collected, ALL, ignore_progress)


def test_a_repeated_prompt_is_its_next_image() -> None:
    (line, *_) = miniature_benchmark(1).lines
    twice = Benchmark("twice", [line, line], MiniatureEvaluator())
    first, second = twice.groups(0, images_per_prompt=2, candidates=1)
    assert [group.image_index for group in (*first, *second)] == [0, 1, 2, 3]
    assert len({group.seeds for group in (*first, *second)}) == 4


def test_benchmarks_by_name(tmp_path: Path) -> None:
    assert len(load_benchmark("geneval-miniature").lines) == 600
    lines = [line.metadata for line in miniature_benchmark(1).lines]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(lines) + "\n")
    assert [line.metadata for line in load_benchmark(str(path), MiniatureEvaluator()).lines] == lines
    with pytest.raises(
        InvalidRequest, match=r"GenEval's prompts do not come with forejudge.*evaluation_metadata\.jsonl"
    ):
        load_benchmark("geneval")
    with pytest.raises(InvalidRequest, match="name an --evaluator"):
        load_benchmark(str(path))
    with pytest.raises(InvalidRequest, match="unknown benchmark 'nowhere'"):
        load_benchmark("nowhere")
    path.write_text(json.dumps({"prompt": "a dog"}))
    with pytest.raises(InvalidRequest, match=r"prompts\.jsonl, line 1: not a GenEval metadata line"):
        load_benchmark(str(path), MiniatureEvaluator())


def test_an_image_that_was_not_kept_is_refused_with_its_candidate(collected: EvaluationStore) -> None:
    with pytest.raises(CheckpointError, match=r"rows/00002\.parquet: the image of candidate 1 was not kept"):
        collected.image(2, collected.rows(2)[4])
