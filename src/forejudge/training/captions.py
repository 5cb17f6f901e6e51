"""Captioned candidates for stage 1: a drawing whose observer says what each picture shows.

The text that a picture was drawn from stays in its row as `prompt`, so that both can be learnt and compared.
"""

from collections.abc import Sequence
from typing import Any

from PIL.Image import Image

from forejudge.evaluation.prompts_file import PromptLine
from forejudge.training.captioners import Captioner


class CaptionObserver:
    """Asks a captioner, which sees nothing but the pictures. Column: `caption`."""

    def __init__(self, captioner: Captioner) -> None:
        self.name, self._captioner = captioner.name, captioner

    def __call__(self, lines: Sequence[PromptLine], pictures: Sequence[Image]) -> list[dict[str, Any]]:
        """See `Observer.__call__`."""
        return [{"caption": caption} for caption in self._captioner(pictures)]
