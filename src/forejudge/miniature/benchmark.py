"""The miniature's test prompts as a benchmark."""

from functools import partial

from forejudge.evaluation.benchmarks import Benchmark
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.miniature.splits import CASES_PER_TASK, Split, cases, split_seed

NAME = "geneval-miniature"


def miniature_benchmark(per_task: int = CASES_PER_TASK, split: Split = "test") -> Benchmark:
    """`per_task` cases of each of the six tasks; a prompt may come several times, each time as its next image."""
    lines = [case.line for case in cases(split, per_task)]
    return Benchmark(NAME, lines, MiniatureEvaluator(), partial(split_seed, split))
