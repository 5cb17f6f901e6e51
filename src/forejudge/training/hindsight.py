"""Other questions about labeled candidates, answered from the detections that their labels keep.

GenEval's rules decide from detections alone: whether images of "two cats" show "three cats" takes neither a new image
nor a new detection. So each group of candidates can be asked about prompts that it was not generated from (hindsight
experience replay, Andrychowicz et al. 2017).
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from pydantic import TypeAdapter

from forejudge.errors import InvalidRequest
from forejudge.evaluators.base import ReportedDetection
from forejudge.evaluators.geneval_rules import Detection, evaluate_image
from forejudge.prompts.geneval import PromptMetadata

_MAX_TRIES = 6  # other prompts answered for each one that is asked
_DETECTIONS = TypeAdapter(list[ReportedDetection])


@dataclass(frozen=True)
class AskedGroup:
    """Rows of one group, the prompt they are asked about, and whether each of them shows it."""

    rows: Sequence[int]
    prompt: str
    correct: Sequence[bool]


@dataclass(frozen=True)
class OtherQuestions:
    """Prompts that any candidate may be asked about, and the detections of each row, as labels keep them."""

    prompts: Sequence[PromptMetadata]
    detections: Sequence[str]

    def check(self, own: Sequence[AskedGroup]) -> None:
        """Raise InvalidRequest unless the detections of these groups explain their labels."""
        for group in own:
            if self._answer(group.rows, self._by_prompt[group.prompt]) != group:
                raise InvalidRequest(
                    f"hindsight: the labels for {group.prompt!r} do not follow from the detections by GenEval's rules: "
                    "set hindsight=0, or label with an evaluator that keeps its detections"
                )

    def ask(self, own: Sequence[AskedGroup], count: int, seed: int) -> list[AskedGroup]:
        """Ask each group about up to `count` other prompts that name no other classes than its own one.

        Prompts that only some of its candidates show come first. The choice depends on `seed` and the group's number.
        """
        return [
            asked
            for number, group in enumerate(own)
            for asked in self._ask(group, count, random.Random(f"{seed} {number}"))
        ]

    def _ask(self, own: AskedGroup, count: int, source: random.Random) -> Iterable[AskedGroup]:
        related = self._related[_classes(self._by_prompt[own.prompt])]
        tried = source.sample(related, min(count * _MAX_TRIES, len(related)))
        answers = [self._answer(own.rows, prompt) for prompt in tried if prompt.prompt != own.prompt]
        answered = [answer for answer in answers if answer is not None]
        return islice(sorted(answered, key=lambda asked: len(set(asked.correct)) == 1), count)

    def _answer(self, rows: Sequence[int], prompt: PromptMetadata) -> AskedGroup | None:
        """Return the answer for each row; None where it depends on a color that was not read."""
        colored = {clause.class_name for clause in prompt.include if clause.color}
        found = [self._detections_of(row) for row in rows]
        if any(each.color is None and each.class_name in colored for detections in found for each in detections):
            return None
        return AskedGroup(rows, prompt.prompt, [evaluate_image(detections, prompt).correct for detections in found])

    def _detections_of(self, row: int) -> list[Detection]:
        reported = _DETECTIONS.validate_json(self.detections[row])
        return [Detection(each.class_name, each.box, each.confidence, each.color) for each in reported]

    @cached_property
    def _by_prompt(self) -> dict[str, PromptMetadata]:
        return {prompt.prompt: prompt for prompt in self.prompts}

    @cached_property
    def _related(self) -> dict[frozenset[str], list[PromptMetadata]]:
        """Prompts by set of classes: those that name only classes of the set."""
        prompts = list(self._by_prompt.values())
        every = {_classes(prompt) for prompt in prompts}
        return {classes: [prompt for prompt in prompts if _classes(prompt) <= classes] for classes in every}


def _classes(prompt: PromptMetadata) -> frozenset[str]:
    return frozenset(clause.class_name for clause in prompt.include)
