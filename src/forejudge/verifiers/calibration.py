"""From log-odds to a probability one can rely on: a temperature and a bias, fitted on validation prompts."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field


class Calibration(BaseModel):
    """probability = sigmoid(log_odds / temperature + bias) (Platt 1999)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(gt=0)
    bias: float

    def probability(self, log_odds: float) -> float:
        """In (0, 1)."""
        return 1 / (1 + math.exp(-max(min(log_odds / self.temperature + self.bias, 60), -60)))


def fit_calibration(log_odds: Sequence[float], correct: Sequence[bool]) -> Calibration:
    """The temperature and bias of highest likelihood; both outcomes must occur."""
    assert len(set(correct)) == 2, "calibration needs both right and wrong candidates"
    x, y = torch.tensor(log_odds, dtype=torch.float64), torch.tensor(correct, dtype=torch.float64)
    scale = x.std().clamp(min=1e-6)
    parameters = torch.zeros(2, dtype=torch.float64, requires_grad=True)  # log slope on x / scale, bias
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(parameters[0].exp() * x / scale + parameters[1], y)
        value.backward()
        return value

    optimizer.step(loss)
    log_slope, bias = parameters.tolist()
    return Calibration(temperature=float(scale) / math.exp(log_slope), bias=bias)
