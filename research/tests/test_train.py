"""The training loop of the miniature's parts: what it continues from."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from forejudge.errors import CheckpointError
from forejudge.progress import ignore_progress
from research.miniature.train import TrainingSettings, generator_for_step, train


def trained(checkpoint: Path) -> nn.Linear:
    """Train two weights towards random targets."""
    torch.manual_seed(0)
    module = nn.Linear(2, 1, bias=False)

    def loss_at_step(step: int) -> Tensor:
        return (module.weight - torch.randn(1, 2, generator=generator_for_step(0, step))).square().sum()

    settings = TrainingSettings(steps=1, batch_size=1, learning_rate=1e-2, warmup_steps=1, ema_decay=0.5)
    averaged, _ = train("part", module, loss_at_step, settings, checkpoint, ignore_progress)
    return averaged


@pytest.mark.parametrize("size", [0, 100, -1])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, size: int) -> None:
    checkpoint = tmp_path / "part.checkpoint"
    trained(checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=r"part\.checkpoint cannot be loaded"):
        trained(checkpoint)
