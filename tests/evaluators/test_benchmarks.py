"""The miniature's benchmark: which prompts and which candidates its test consists of."""

import json
from pathlib import Path

import pytest

from forejudge.candidates.collect import EvaluationCollector
from forejudge.evaluators.benchmarks import Benchmark, load_benchmark
from forejudge.miniature.evaluator import miniature_benchmark
from forejudge.miniature.prompts import TASKS_SHARING_PROMPTS, descriptions
from forejudge.noise import Split, candidate_seed
from forejudge.options import MAX_SEED
from forejudge.prompts.geneval import TASKS, Task
from tests.support.doubles import ScriptedGenerator

# Run seed of a user's seed 0 by split: the first 8 bytes of SHA-256 of "run seed|SPLIT|0", modulo 2**32.
RUN_SEEDS: dict[Split, int] = {"training": 1945620827, "validation": 3056563661, "test": 762639166}
BENCHMARK = load_benchmark("geneval-miniature")


def prompts_of(task: Task) -> set[str]:
    return {line.prompt for line in BENCHMARK.lines if line.geneval_metadata().tag == task}


def test_the_benchmark_is_the_one_of_the_committed_evaluation(repository: Path) -> None:
    settings = json.loads((repository / "benchmarks" / "miniature.json").read_text())["settings"]
    assert BENCHMARK.digest == settings["benchmark_digest"] == "d246440fadb0c605"
    assert len(BENCHMARK.lines) == settings["prompts"] == 600


@pytest.mark.parametrize("task", TASKS)
def test_its_prompts_are_the_test_splits(task: Task) -> None:
    """No prompt of training or validation, except where a task has no more prompts than these."""
    assert prompts_of(task) <= {item.prompt for item in descriptions(task, "test")}
    seen_before = {item.prompt for split in ("training", "validation") for item in descriptions(task, split)}
    assert prompts_of(task).isdisjoint(seen_before) == (task not in TASKS_SHARING_PROMPTS)


@pytest.mark.parametrize("split", RUN_SEEDS)
def test_candidates_are_those_of_the_split(split: Split) -> None:
    """Under a user's seed, image by image of a repeated prompt."""
    benchmark = miniature_benchmark(50, split)
    seen: dict[str, int] = {}
    for line, (group,) in zip(benchmark.lines, benchmark.groups(0, 1, 2), strict=True):
        image = seen.get(line.prompt, 0)
        assert group.seeds == tuple(candidate_seed(RUN_SEEDS[split], line.prompt, image, index) for index in (0, 1))
        seen[line.prompt] = image + 1
    assert max(seen.values()) > 1


def test_the_benchmark_by_default_has_test_seeds() -> None:
    first = BENCHMARK.lines[0].prompt
    ((group,), *_) = BENCHMARK.groups(0, 1, 1)
    assert group.seeds == (candidate_seed(RUN_SEEDS["test"], first, 0, 0),)


def test_an_evaluation_generates_the_benchmarks_candidates() -> None:
    """Its rows, seed after seed: none of them is a candidate of training or validation with any of 20 seeds."""
    few = Benchmark("few", BENCHMARK.lines[::60], BENCHMARK.evaluator, BENCHMARK.run_seed)
    collector = EvaluationCollector(ScriptedGenerator(), {}, few, candidates=2, seeds=2)
    pairs = [
        (few.lines[prompt].prompt, row["seed"]) for prompt in range(len(few.lines)) for row in collector._rows(prompt)
    ]
    assert len(pairs) == len(set(pairs)) == len(few.lines) * 2 * 2
    assert pairs[:2] == [(few.lines[0].prompt, seed) for seed in few.groups(0, 1, 2)[0][0].seeds]
    assert pairs[2:4] == [(few.lines[0].prompt, seed) for seed in few.groups(1, 1, 2)[0][0].seeds]
    others = {
        (group.line.prompt, seed)
        for split in ("training", "validation")
        for user_seed in range(20)
        for (group,) in Benchmark("", few.lines, few.evaluator, miniature_benchmark(1, split).run_seed).groups(
            user_seed, 1, 2
        )
        for seed in group.seeds
    }
    assert others.isdisjoint(pairs)
    assert all(0 <= seed <= MAX_SEED for _, seed in pairs)
