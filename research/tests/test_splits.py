"""Which prompts, candidates and random steps each part of a build sees: nothing held out is ever trained on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from forejudge.candidates.collect import CandidateCollector
from forejudge.candidates.store import CandidateStore
from forejudge.generators.base import Generator
from forejudge.miniature.evaluator import miniature_benchmark
from forejudge.miniature.prompts import TASKS_SHARING_PROMPTS, cases, descriptions, sample_descriptions
from forejudge.noise import Split, split_seed
from forejudge.progress import ProgressCallback, Shard, ignore_progress
from forejudge.prompts.geneval import TASKS, Description
from forejudge.prompts.prompt_file import groups_of, read_prompts
from research.miniature import train
from research.miniature.build import Build, VerifierBuild, write_world
from research.miniature.recipe import Recipe, tiny_recipe
from research.tests.small_build import EVEN

SEED = 3
MODULES = ("autoencoder", "one_step", "language_model", "clip", "classifier")
SHARED = {item.prompt for task in TASKS_SHARING_PROMPTS for item in descriptions(task, "test")}


def prompts_of(split: Split) -> set[str]:
    return {item.prompt for task in TASKS for item in descriptions(task, split)}


def test_splits_share_single_objects_and_counts_alone() -> None:
    training, validation, test = prompts_of("training"), prompts_of("validation"), prompts_of("test")
    assert training & validation == training & test == validation & test == SHARED
    assert min(len(training), len(validation), len(test)) > 2 * len(SHARED)


def test_the_benchmark_and_the_world_show_test_prompts(tmp_path: Path) -> None:
    benchmark = miniature_benchmark()
    expected = {case.description.prompt for case in cases("test")}
    assert {line.prompt for line in benchmark.lines} == expected <= prompts_of("test")
    assert benchmark.run_seed(SEED) == split_seed("test", SEED)
    write_world(tmp_path)
    assert {line.prompt for line in read_prompts(tmp_path / "test_prompts.jsonl")} == expected


@pytest.fixture
def collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, CandidateCollector]:
    """The collector of each folder of candidates of a build, in the order in which they run."""
    collectors: dict[str, CandidateCollector] = {}

    def run(self: CandidateCollector, store: CandidateStore, shard: Shard, report: ProgressCallback) -> None:
        assert (shard.number, shard.count) == (1, 1)
        collectors[store.path.name] = self

    monkeypatch.setattr(CandidateCollector, "run", run)
    build = verifier_build(tmp_path)
    build.collect_candidates()
    return collectors


def verifier_build(folder: Path) -> VerifierBuild:
    recipe = tiny_recipe().verifier.model_copy(update={"recorded": (), "training_prompts": 300})
    generator = cast(Generator, object())
    return VerifierBuild(recipe, SEED, folder, folder / "work", folder / "spoken", generator, EVEN, ignore_progress)


def test_candidates_are_collected_of_each_split_with_its_own_seeds(collected: dict[str, CandidateCollector]) -> None:
    counts = {name: (len(collector.lines), collector.candidates) for name, collector in collected.items()}
    assert counts == {
        "labels_training": (300, 2), "labels_validation": (6, 2), "captions_training": (4, 2),
        "captions_validation": (1, 2),
    }  # fmt: skip
    for name, collector in collected.items():
        kind, split = name.split("_")
        assert (collector.split, collector.seed) == (split, SEED)
        assert collector.observer.name == {"labels": "even", "captions": "miniature"}[kind]
        assert {line.prompt for line in collector.lines} <= prompts_of(collector.split)
    names = {name: [line.prompt for line in collector.lines] for name, collector in collected.items()}
    assert names["labels_training"][:4] != names["captions_training"], "other prompts are captioned"


def test_no_candidate_is_collected_twice(collected: dict[str, CandidateCollector]) -> None:
    pairs = {}
    for name, collector in collected.items():
        run_seed = split_seed(collector.split, collector.seed)
        groups = groups_of(collector.lines, collector.candidates, run_seed)
        pairs[name] = {(group.line.prompt, seed) for group in groups for seed in group.seeds}
    assert not pairs["labels_training"] & pairs["labels_validation"]
    assert not pairs["captions_training"] & pairs["captions_validation"]
    assert not pairs["labels_training"] & pairs["captions_validation"]
    assert not pairs["captions_training"] & pairs["labels_validation"]


@pytest.mark.parametrize("kind", ["labels", "captions"])
def test_validation_rows_are_those_of_validation_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(
        "research.miniature.build.TrainingData.of",
        lambda training, validation, _: opened.extend([training, validation]),
    )
    verifier_build(tmp_path).data(kind)
    assert [path.name for path in opened] == [f"{kind}_training", f"{kind}_validation"]


class Steps:
    """Records the random steps that a build takes, as (seed, step), and the split of every sample of prompts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[tuple[int, int]] = []
        self.splits: list[Split] = []
        for module in MODULES:
            monkeypatch.setattr(f"research.miniature.{module}.generator_for_step", self._generator)
            if module != "classifier":
                monkeypatch.setattr(f"research.miniature.{module}.sample_descriptions", self._sample)

    def _generator(self, seed: int, step: int) -> torch.Generator:
        self.taken.append((seed, step))
        return train.generator_for_step(seed, step)

    def _sample(self, count: int, generator: torch.Generator, split: Split = "training") -> list[Description]:
        self.splits.append(split)
        return sample_descriptions(count, generator, split)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    for count in ("build._RETRIEVAL_CAPTIONS", "build._HELD_OUT_IMAGES", "language_model._HELD_OUT_TEXTS"):
        monkeypatch.setattr(f"research.miniature.{count}", 8)
    yield Steps(monkeypatch)
    torch.set_flush_denormal(False)


def two_steps() -> Recipe:
    """Return the tiny recipe with trainings of two steps."""
    values: dict[str, Any] = tiny_recipe().model_dump()
    generator = values["generator"]
    parts = [values["autoencoder"], generator["shallow"], generator["deep"]]
    parts += [values[name]["settings"] for name in ("language_model", "clip", "classifier")]
    for settings in parts:
        settings |= {"steps": 2, "batch_size": 4}
    return Recipe.model_validate(values | {"seed": SEED})


def test_no_part_is_measured_on_what_it_was_trained_on(tmp_path: Path, steps: Steps) -> None:
    """Every training and every measurement has a seed of its own; measurements sample validation prompts."""
    build, found = Build(two_steps(), tmp_path, torch.device("cpu"), ignore_progress), {}
    for part in ("autoencoder", "generator", "language-model", "clip", "classifier"):
        steps.taken.clear()
        steps.splits.clear()
        build.run(part)
        found[part] = list(steps.taken), list(steps.splits)
    training = ["training", "training"]
    assert found == {
        "autoencoder": ([(SEED + 1, 0), (SEED + 1, 1)], training),
        "generator": ([(SEED + 2, 0), (SEED + 2, 1), (SEED + 3, 0), (SEED + 3, 1)], training * 2),
        "language-model": ([(SEED + 4, 0), (SEED + 4, 1), (SEED + 5, 0)], [*training, "validation"]),
        "clip": ([(SEED + 6, 0), (SEED + 6, 1), (SEED + 7, 0)], [*training, "validation"]),
        "classifier": ([(SEED + 8, 0), (SEED + 8, 1), (SEED + 9, 0)], []),
    }
