"""Costs of batches and priors of verifiers, which `forejudge eval --record-for simulate` keeps beside the verdicts."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat, PositiveInt

from forejudge.config_files import read_config
from forejudge.device import is_out_of_memory
from forejudge.evaluation.report import Cost, FrozenModel
from forejudge.expected_improvement import Prior
from forejudge.files import write_text
from forejudge.generators.base import Generator
from forejudge.profiling.measure import time_rounds
from forejudge.profiling.searches import generation_workload
from forejudge.search import DEFAULT_MAX_BATCH_SIZE
from forejudge.session import PromptSession
from forejudge.verifiers.base import Verifier

POLICY_COSTS_FILE = "policy_costs.json"
_ROUNDS, _WARM_UP = 7, 2


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
        encode = partial(generator.encode_without_padding, prompt, generator.defaults)
        one, *two = (
            _least_ms(generation_workload(generator, prompt, steps), generator.device)
            for steps in (1, 2)[: 1 + second_step]
        )
        return cls(
            verifiers={name: _batch_costs(generator, each, prompt) for name, each in verifiers.items()},
            encode_ms=_least_ms(encode, generator.device),
            second_step_ms=max(two[0] - one, 1e-3) if two else None,
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
    """Time batches of 1, 2, 4, ... candidates, as many as fit in memory, and finishing one."""
    session = PromptSession(generator, verifier, prompt, generator.defaults)
    batch_ms: dict[int, float] = {}
    for size in (2**power for power in range(DEFAULT_MAX_BATCH_SIZE.bit_length())):
        try:
            batch_ms[size] = _least_ms(partial(session.score, tuple(range(size))), generator.device)
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            break
    candidate, _ = session.score((0,))
    finish_ms = _least_ms(partial(session.finish, candidate), generator.device)
    return BatchCosts(batch_ms=batch_ms, finish_ms=finish_ms, prior=verifier.prior)


def _least_ms(workload: Callable[[], object], device: torch.device) -> float:
    """Return the least of several times: other work on the device only adds to it."""
    return min(time_rounds({"": workload}, device, _ROUNDS, _WARM_UP)[""])
