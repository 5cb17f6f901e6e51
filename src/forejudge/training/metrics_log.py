"""What a run logs: every figure as a JSON line, and its stand to whoever shows it."""

import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from forejudge.files import write_text
from forejudge.progress import Progress, Report, Stopwatch

METRICS_FILE = "metrics.jsonl"


class MetricsLog(TrainerCallback):
    """Every logged figure as a JSON line, none twice after a resumption; the stand to whoever shows it."""

    def __init__(self, path: Path, part: str, report: Report) -> None:
        self.path, self.part, self.report = path, part, report

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drop the lines of steps that will be done again."""
        self.stopwatch, self.note = Stopwatch(self.part, state.global_step, state.max_steps), ""
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= state.global_step]
        if state.is_world_process_zero:
            write_text(self.path, "".join(kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Add a line."""
        figures = dict(logs or {})
        if "loss" in figures:
            self.note = f"loss {figures['loss']:.3f}"
        if state.is_world_process_zero:
            with self.path.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **figures}) + "\n")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the stand. The last step is evaluated too: the best checkpoint may be that one."""
        control.should_evaluate |= state.global_step == state.max_steps
        progress: Progress = self.stopwatch.at(state.global_step, self.note)
        if state.is_world_process_zero:
            self.report(progress)
