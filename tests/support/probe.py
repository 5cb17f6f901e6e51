"""A verifier class and an input that are not in the package: an MLP probe of the mean hidden state."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import PositiveInt
from safetensors.torch import save_file
from torch import Tensor, nn

from forejudge.checkpoint import load_weights
from forejudge.generators.base import Architecture
from forejudge.types import Candidates, Verdict, prefix_stage
from forejudge.verifiers.base import PretrainedVerifier
from forejudge.verifiers.config import VerifierConfig
from forejudge.verifiers.connector import Standardizer
from forejudge.verifiers.inputs import InputWeights, VerifierInput

_PROBE_FILE = "probe.safetensors"


class PooledStateInput(VerifierInput):
    """Hidden state after K blocks, averaged over its tokens: one token of the same width."""

    pattern, usage = r"pooled:[1-9]\d*", "pooled:K (mean after K blocks)"

    def __init__(self, blocks: int) -> None:
        self.name, self.stage = f"pooled:{blocks}", prefix_stage(blocks)

    @classmethod
    def from_name(cls, name: str, weights: InputWeights, dtype: torch.dtype) -> Self:
        return cls(int(name.partition(":")[2]))

    def width(self, architecture: Architecture) -> int:
        return architecture.width

    def tokens(self, candidates: Candidates) -> Tensor:
        return candidates.tensor(self.stage).mean(1, keepdim=True)


class MlpProbeConfig(VerifierConfig):
    kind: Literal["mlp_probe"] = "mlp_probe"
    hidden_size: PositiveInt = 16


class MlpProbe(Standardizer):
    """Two linear layers over standardized states of width `width`; the output is the log-odds of a right image."""

    def __init__(self, width: int, hidden_size: int) -> None:
        super().__init__(width)
        self.layers = nn.Sequential(nn.Linear(width, hidden_size), nn.GELU(), nn.Linear(hidden_size, 1))

    def forward(self, tokens_NTD: Tensor) -> Tensor:
        return self.layers(self.standardize(tokens_NTD).mean(1))[:, 0]


class MlpProbeVerifier(PretrainedVerifier[MlpProbeConfig]):
    """Verifier that does not read the prompt."""

    config_class = MlpProbeConfig

    def __init__(
        self, name: str, config: MlpProbeConfig, model: MlpProbe, verifier_input: VerifierInput | None = None
    ) -> None:
        super().__init__(name, config, verifier_input)
        self.model = model

    @classmethod
    def load_model(
        cls,
        folder: Path,
        name: str,
        config: MlpProbeConfig,
        verifier_input: VerifierInput,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Self:
        model = MlpProbe(config.input_width(verifier_input), config.hidden_size)
        load_weights(model, folder / _PROBE_FILE)
        return cls(name, config, model.to(device, dtype), verifier_input)

    def save_model(self, folder: Path) -> None:
        save_file(self.model.state_dict(), folder / _PROBE_FILE)

    def weights(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()

    @property
    def input_width(self) -> int:
        return self.model.width

    @torch.no_grad()
    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        log_odds_N = self.model(self.verifier_input.tokens(candidates))
        return [self.verdict(log_odds, log_odds) for log_odds in log_odds_N.tolist()]
