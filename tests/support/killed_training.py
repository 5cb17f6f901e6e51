"""Program that trains verifiers in forked processes, each of which kills itself at another moment.

Importing takes longer than training here, so one process imports for all.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerState

from forejudge.progress import Progress, ignore_progress
from forejudge.training import output
from tests.support.tiny_run import TinyRun

IN_AN_EPOCH: dict[str, Any] = {"steps": 10, "batch_size": 20}  # six steps make an epoch
# Never better than after two steps, so over after six.
STOPS_EARLY: dict[str, Any] = {"learning_rate": 1e-12, "early_stopping_patience": 2, "eval_steps": 2}


def die(*_: Any) -> None:
    """End at once, without cleanup."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_step_five(progress: Progress) -> None:
    """Die right after a checkpoint."""
    if progress.step == 5:
        die()


def die_in_the_second_checkpoint() -> None:
    """Die between a checkpoint's weights and its trainer_state.json."""
    save = TrainerState.save_to_json

    def save_or_die(self: TrainerState, path: str) -> None:
        if "checkpoint-8" in path:
            die()
        save(self, path)

    TrainerState.save_to_json = save_or_die


def die_before_the_card() -> None:
    """Die after all steps, with the verifier written."""
    setattr(output, "verifier_card", die)  # noqa: B010 - no module of its own exports it


MOMENTS: dict[str, dict[str, Any]] = {
    "at-a-step": IN_AN_EPOCH,
    "at-a-step-of-a-run-that-stops-early": STOPS_EARLY,
    "in-a-checkpoint": IN_AN_EPOCH,
    "before-the-card": IN_AN_EPOCH,
    "before-the-card-of-a-run-that-stopped-early": STOPS_EARLY,
}


def train_until_killed(run: TinyRun, moment: str) -> None:
    """Train in a folder of the moment's name."""
    if moment == "in-a-checkpoint":
        die_in_the_second_checkpoint()
    if moment.startswith("before-the-card"):
        die_before_the_card()
    report = die_at_step_five if moment.startswith("at-a-step") else ignore_progress
    run.verify(run.folder / moment, report, **MOMENTS[moment])


def main(folder: str) -> None:
    """Print the exit status of each process."""
    for moment in MOMENTS:
        copy = os.fork()
        if copy == 0:
            train_until_killed(TinyRun(Path(folder)), moment)
            os._exit(0)
        print(moment, os.waitstatus_to_exitcode(os.waitpid(copy, 0)[1]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
