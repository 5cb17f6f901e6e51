"""Costs of batches and priors of verifiers, which price the searches of policies on recorded verdicts."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, PositiveInt

from forejudge.config_files import read_config
from forejudge.device import is_out_of_memory
from forejudge.evaluation.equal_cost import CostCurve
from forejudge.evaluation.report import Cost, FrozenModel
from forejudge.expected_improvement import Prior
from forejudge.files import write_text
from forejudge.generators.base import Generator
from forejudge.profiling.measure import Workload
from forejudge.search import DEFAULT_MAX_BATCH_SIZE
from forejudge.session import PromptSession
from forejudge.verifiers.base import Verifier

POLICY_COSTS_FILE = "policy_costs.json"
_LEAST_MS = 1e-3  # of what is measured as a difference


class Part(NamedTuple):
    """A part of searches with one verifier: encoding the prompt, a batch of `size`, or finishing one candidate."""

    verifier: str
    work: Literal["encode", "batch", "finish", "finish in one step more"]
    size: int = 1


_ENCODE = Part("", "encode")


class BatchCosts(FrozenModel):
    """Milliseconds of a search's parts with one verifier, and its prior.

    `batch_ms` is for generating and scoring a batch, by its size; `finish_ms` for finishing one candidate, and
    `second_step_ms` for how much longer that takes in one step more.
    """

    batch_ms: Annotated[dict[PositiveInt, Cost], Field(min_length=1)]
    finish_ms: NonNegativeFloat
    second_step_ms: Cost | None
    prior: Prior | None


class PolicyCosts(FrozenModel):
    """Costs of a search by verifier, and `encode_ms` of its prompt."""

    verifiers: dict[str, BatchCosts]
    encode_ms: NonNegativeFloat

    @classmethod
    def from_rounds(cls, rounds_ms: Mapping[Any, Sequence[float]], verifiers: Mapping[str, Verifier]) -> "PolicyCosts":
        """Take the medians over rounds in which all of `policy_workloads` took turns."""
        return cls(
            verifiers={name: _batch_costs(rounds_ms, name, each.prior) for name, each in verifiers.items()},
            encode_ms=median(rounds_ms[_ENCODE]),
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


def policy_workloads(
    generator: Generator, verifiers: Mapping[str, Verifier], prompt: str, second_step: bool
) -> dict[Part, Workload]:
    """Return what is timed: batches of 1, 2, 4, ... candidates, as many as fit in memory, and the other parts."""
    workloads: dict[Part, Workload] = {_ENCODE: partial(generator.encode_without_padding, prompt, generator.defaults)}
    for name, verifier in verifiers.items():
        session = PromptSession(generator, verifier, prompt, generator.defaults)
        for size in _batch_sizes(session):
            workloads[Part(name, "batch", size)] = partial(session.score, tuple(range(size)))
        candidate, _ = session.score((0,))
        workloads[Part(name, "finish")] = partial(session.finish, candidate)
        if second_step:
            workloads[Part(name, "finish in one step more")] = partial(session.finish, candidate, refine=True)
    return workloads


def _batch_sizes(session: PromptSession) -> list[int]:
    sizes: list[int] = []
    for size in (2**power for power in range(DEFAULT_MAX_BATCH_SIZE.bit_length())):
        try:
            session.score(tuple(range(size)))
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
            break
        sizes.append(size)
    return sizes


def _batch_costs(rounds_ms: Mapping[Any, Sequence[float]], name: str, prior: Prior | None) -> BatchCosts:
    sizes = [part.size for part in rounds_ms if isinstance(part, Part) and part[:2] == (name, "batch")]
    medians = {size: median(rounds_ms[Part(name, "batch", size)]) for size in sizes}
    curve = CostCurve.of(medians)  # a larger batch never costs less
    finish, refined = rounds_ms[Part(name, "finish")], rounds_ms.get(Part(name, "finish in one step more"))
    second_step = [after - before for before, after in zip(finish, refined, strict=True)] if refined else None
    return BatchCosts(
        batch_ms={size: curve.cost_at(size) for size in medians},
        finish_ms=median(finish),
        second_step_ms=max(median(second_step), _LEAST_MS) if second_step else None,
        prior=prior,
    )
