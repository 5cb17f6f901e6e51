"""Who judges the pictures of `forejudge eval`: the benchmark with its evaluator, and those beside it."""

from collections.abc import Sequence

import torch

from forejudge.evaluation.benchmarks import Benchmark, load_benchmark, second_evaluators_of
from forejudge.evaluation.evaluators import GENEVAL, Evaluator, GenEvalModels, load_evaluator

Judge = tuple[str | None, str | None, str | None]
"""--evaluator (None: the benchmark's own), --detector, --color-model."""


def load_judges(
    benchmark: str, judge: Judge, second_evaluators: Sequence[str], device: torch.device
) -> tuple[Benchmark, dict[str, Evaluator]]:
    """The benchmark, and second evaluators by name.

    Where `geneval` is among the evaluators, detector and color model are for it alone. Raises InvalidRequest and
    CheckpointError, see `load_benchmark`, `load_evaluator` and `second_evaluators_of`.
    """
    first, detector, color_model = judge

    def load(name: str) -> Evaluator:
        if name != GENEVAL and GENEVAL in (first, *second_evaluators):
            return load_evaluator(name, GenEvalModels(device=str(device)))
        return load_evaluator(name, GenEvalModels(detector, color_model, str(device)))

    judged = load_benchmark(benchmark, None if first is None else load(first))
    return judged, second_evaluators_of(judged, [load(name) for name in second_evaluators])
