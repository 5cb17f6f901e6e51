"""A few steps of training, for tests of whether a loss teaches anything."""

import torch
from torch import nn

from research.miniature.train import LossAtStep


def losses_of(model: nn.Module, loss_at_step: LossAtStep, steps: int, learning_rate: float) -> list[float]:
    """Return the loss before each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    losses = []
    for step in range(steps):
        loss = loss_at_step(step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses
