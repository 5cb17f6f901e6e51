"""A process that collects candidates into a folder and kills itself at a given moment of the second block."""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from forejudge import files
from forejudge.candidates import store
from forejudge.candidates.store import CandidateStore
from forejudge.evaluators.base import Evaluation
from forejudge.progress import Shard, ignore_progress
from forejudge.prompts.prompt_file import PromptLine
from tests.support.stand_in import FIVE_PROMPTS, MANY_PROMPTS, EvenIsRight, candidate_collector


def die() -> None:
    """End at once, with nothing cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)


class DiesAtSecondCall(EvenIsRight):
    """Labels one block, and half of the next."""

    calls = 0

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image.Image]) -> list[Evaluation]:
        self.calls += 1
        if self.calls == 2:
            super().__call__(lines[:50], images[:50])
            die()
        return super().__call__(lines, images)


def die_between_states_and_rows() -> None:
    """Die once the second block's states are written, before its rows are."""
    write = files.write_bytes

    def write_or_die(path: Path, content: bytes) -> None:
        if path.name == "00001.parquet":
            die()
        write(path, content)

    store.write_bytes = write_or_die  # type: ignore[attr-defined]


def die_before_the_rename() -> None:
    """Die once the second block's rows are on disk under their temporary name."""
    replace = Path.replace

    def replace_or_die(self: Path, target: Any) -> Path:
        if Path(target).name == "00001.parquet":
            die()
        return replace(self, target)

    Path.replace = replace_or_die  # type: ignore[method-assign,assignment]


MOMENTS = ("evaluating", "between-states-and-rows", "before-the-rename")


def main(folder: str, moment: str) -> None:
    """Collect until killed; at the moment "any" the parent process kills."""
    if moment == "between-states-and-rows":
        die_between_states_and_rows()
    if moment == "before-the-rename":
        die_before_the_rename()
    evaluator = DiesAtSecondCall() if moment == "evaluating" else EvenIsRight()
    candidate_collector(MANY_PROMPTS if moment == "any" else FIVE_PROMPTS, evaluator=evaluator).run(
        CandidateStore(Path(folder)), Shard(), ignore_progress
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
