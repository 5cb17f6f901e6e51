"""The miniature's evaluator: its detector, and GenEval's rules."""

from collections.abc import Sequence

from PIL.Image import Image

from forejudge.evaluation.evaluators import Evaluator, Judgement
from forejudge.evaluation.geneval import judge_image
from forejudge.evaluation.prompts_file import PromptLine
from forejudge.miniature.detector import detect


class MiniatureEvaluator(Evaluator):
    """Judges by GenEval's metadata, which every line must have. Raises InvalidRequest naming one that has none."""

    name = "geneval-miniature"

    def check(self, lines: Sequence[PromptLine]) -> None:
        """See `Evaluator.check`."""
        for line in lines:
            line.geneval_metadata()

    def __call__(self, lines: Sequence[PromptLine], pictures: Sequence[Image]) -> list[Judgement]:
        """See `Evaluator.__call__`."""
        return [_judged(line, picture) for line, picture in zip(lines, pictures, strict=True)]


def _judged(line: PromptLine, picture: Image) -> Judgement:
    detections = detect(picture)
    verdict = judge_image(detections, line.geneval_metadata())
    return Judgement(verdict.correct, verdict.reason, tuple(detections))
