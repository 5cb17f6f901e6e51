"""The trainer's checkpoints: which of them are whole, and what the last one says of the run."""

import json
from pathlib import Path

_STATE_FILE = "trainer_state.json"


def newest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written whole: its trainer_state.json is written last."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{_STATE_FILE}") if _is_json(path)]
    return max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")), default=None)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except ValueError:
        return False
    return True


def ended_with(checkpoint: Path) -> bool:
    """Whether training was over with it: all steps done, or stopped early."""
    control = json.loads((checkpoint / _STATE_FILE).read_text())["stateful_callbacks"]["TrainerControl"]
    return bool(control["args"]["should_training_stop"])


def best_weights(checkpoint: Path) -> Path:
    """The file of the best weights up to this checkpoint."""
    best = json.loads((checkpoint / _STATE_FILE).read_text())["best_global_step"]
    return (checkpoint if best is None else checkpoint.with_name(f"checkpoint-{best}")) / "model.safetensors"
