"""Costs of batches and priors of verifiers, which `forejudge eval --record-for simulate` keeps beside the verdicts."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt

from forejudge.config_files import read_config
from forejudge.costs import CostModel
from forejudge.evaluation.report import Cost, FrozenModel
from forejudge.expected_improvement import Prior
from forejudge.files import write_text
from forejudge.generators.base import Generator
from forejudge.profiling.measure import time_rounds
from forejudge.profiling.searches import generation_workload
from forejudge.search import DEFAULT_MAX_BATCH_SIZE
from forejudge.verifiers.base import Verifier

POLICY_COSTS_FILE = "policy_costs.json"
_ROUNDS, _WARM_UP = 15, 3


class BatchCosts(FrozenModel):
    """Milliseconds of generating and scoring a batch, by its size, and of finishing one candidate; and the prior."""

    batch_ms: Annotated[dict[PositiveInt, Cost], Field(min_length=1)]
    finish_ms: NonNegativeFloat
    prior: Prior | None


class PolicyCosts(FrozenModel):
    """Costs of a search by verifier; `encode_ms` of its prompt, and `second_step_ms` of the winner's second step."""

    verifiers: dict[str, BatchCosts]
    encode_ms: NonNegativeFloat
    second_step_ms: Cost | None

    @classmethod
    def measure(
        cls, generator: Generator, verifiers: Mapping[str, Verifier], prompt: str, second_step: bool
    ) -> "PolicyCosts":
        """Time batches of 1, 2, 4, ... candidates with each verifier, and the second step where it is asked for."""
        sampling = generator.defaults
        workloads = {steps: generation_workload(generator, prompt, steps) for steps in (1, 2)[: 1 + second_step]}
        encode = {0: lambda: generator.encode_without_padding(prompt, sampling)}
        rounds = time_rounds({**workloads, **encode}, generator.device, _ROUNDS, _WARM_UP)
        least = {key: min(milliseconds) for key, milliseconds in rounds.items()}
        return cls(
            verifiers={name: _batch_costs(generator, each, prompt) for name, each in verifiers.items()},
            encode_ms=least[0],
            second_step_ms=max(least[2] - least[1], 1e-3) if second_step else None,
        )

    def write(self, folder: Path) -> None:
        """Write the costs into the folder of an evaluation. Raises OutputError."""
        write_text(folder / POLICY_COSTS_FILE, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "PolicyCosts":
        """Read the costs of an evaluation. Raises CheckpointError."""
        return read_config(
            folder / POLICY_COSTS_FILE, cls, "the same `forejudge eval` with --record-for simulate measures them"
        )


def _batch_costs(generator: Generator, verifier: Verifier, prompt: str) -> BatchCosts:
    latency = CostModel(generator, verifier).measure(prompt, generator.defaults, DEFAULT_MAX_BATCH_SIZE, math.inf)
    batch_ms = {size: 1000 * seconds for size, seconds in latency.batch.items() if math.isfinite(seconds)}
    return BatchCosts(batch_ms=batch_ms, finish_ms=1000 * latency.finish, prior=verifier.prior)
