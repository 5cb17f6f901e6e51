"""The miniature's evaluator: its detector, and GenEval's rules."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial

from PIL.Image import Image

from forejudge.evaluators.base import Evaluation, Evaluator
from forejudge.evaluators.benchmarks import Benchmark
from forejudge.evaluators.geneval_rules import Detection, evaluate_image
from forejudge.miniature.detector import detect
from forejudge.miniature.prompts import CASES_PER_TASK, Split, cases, split_seed
from forejudge.prompts.prompt_file import PromptLine


class RulesEvaluator(Evaluator):
    """Judges what it sees by GenEval's metadata, which every line must have.

    Raises InvalidRequest naming one that has none.
    """

    def check(self, lines: Sequence[PromptLine]) -> None:
        """See `Evaluator.check`."""
        for line in lines:
            line.geneval_metadata()

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[Evaluation]:
        """See `Evaluator.__call__`."""
        detections_per_image = self._detect(images) if images else []
        return [_evaluate(line, detections) for line, detections in zip(lines, detections_per_image, strict=True)]

    @abstractmethod
    def _detect(self, images: Sequence[Image]) -> list[list[Detection]]:
        """What is in each picture; there is at least one."""


class MiniatureEvaluator(RulesEvaluator):
    """Sees with the detector."""

    name = "geneval-miniature"

    def _detect(self, images: Sequence[Image]) -> list[list[Detection]]:
        return [detect(image) for image in images]


def _evaluate(line: PromptLine, detections: Sequence[Detection]) -> Evaluation:
    verdict = evaluate_image(detections, line.geneval_metadata())
    return Evaluation(verdict.correct, verdict.reason, tuple(detections))


# FOLDED: The miniature's test prompts as a benchmark.


NAME = "geneval-miniature"


def miniature_benchmark(per_task: int = CASES_PER_TASK, split: Split = "test") -> Benchmark:
    """`per_task` cases of each of the six tasks; a prompt may come several times, each time as its next image."""
    lines = [case.line for case in cases(split, per_task)]
    return Benchmark(NAME, lines, MiniatureEvaluator(), partial(split_seed, split))
