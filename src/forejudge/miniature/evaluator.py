"""The miniature's evaluator and benchmark: its detector, GenEval's rules and its test prompts."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial

from PIL.Image import Image

from forejudge.evaluators.base import Evaluation, Evaluator, check_classes
from forejudge.evaluators.benchmarks import Benchmark
from forejudge.evaluators.geneval_rules import Detection, evaluate_image
from forejudge.miniature.detector import detect
from forejudge.miniature.prompts import CASES_PER_TASK, cases
from forejudge.miniature.scenes import KINDS
from forejudge.noise import Split, split_seed
from forejudge.prompts.prompt_file import PromptLine

BENCHMARK_NAME = "geneval-miniature"
_VALIDATION_CASES_PER_TASK = 30


class RulesEvaluator(Evaluator):
    """Base of evaluators that apply GenEval's rules to what they detect; every line needs GenEval's metadata."""

    def check(self, lines: Sequence[PromptLine]) -> None:
        """See `Evaluator.check`. Refuses a line without GenEval's metadata, or with a class of another world."""
        check_classes(lines, KINDS, "shapes of the miniature")

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        """See `Evaluator.__call__`."""
        detections_per_image = self._detect(images) if images else []
        return [_evaluate(line, detections) for line, detections in zip(lines, detections_per_image, strict=True)]

    @abstractmethod
    def _detect(self, images: Sequence[Image]) -> list[list[Detection]]:
        """Detect the objects of each image; there is at least one image."""


class MiniatureEvaluator(RulesEvaluator):
    """Evaluator of the miniature world by its detector."""

    name = BENCHMARK_NAME

    def _detect(self, images: Sequence[Image]) -> list[list[Detection]]:
        return [detect(image) for image in images]


def _evaluate(line: PromptLine, detections: Sequence[Detection]) -> Evaluation:
    verdict = evaluate_image(detections, line.geneval_metadata())
    return Evaluation(verdict.correct, verdict.reason, tuple(detections))


def miniature_benchmark(per_task: int = CASES_PER_TASK, split: Split = "test") -> Benchmark:
    """Build the benchmark of `per_task` cases of each of the six tasks; a repeated prompt stands for its next image."""
    lines = [case.line for case in cases(split, per_task)]
    name = BENCHMARK_NAME if split == "test" else f"{BENCHMARK_NAME}-{split}"
    return Benchmark(name, lines, MiniatureEvaluator(), partial(split_seed, split))


def validation_benchmark() -> Benchmark:
    """Build the benchmark of 180 validation cases, on which settings are chosen."""
    return miniature_benchmark(_VALIDATION_CASES_PER_TASK, "validation")
