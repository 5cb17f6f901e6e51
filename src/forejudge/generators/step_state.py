"""Where candidates of a step-wise generator stand, and what belongs to their prompt."""

from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

from torch import Tensor

from forejudge.generators.base import Sampling

Shared = TypeVar("Shared", Tensor, Tensor | None)


class Conditioning(Protocol):
    """A prompt, encoded, with all else that its candidates have in common."""

    @property
    def sampling(self) -> Sampling: ...


class Hidden(Protocol):
    """A forward pass stopped after some blocks, with all that the others need; it is indexed by rows."""

    @property
    def hidden_NTD(self) -> Tensor: ...

    def __getitem__(self, rows: list[int]) -> Self: ...


@dataclass(frozen=True)
class StepState:
    """Where N candidates stand: in `step`, after `blocks` blocks, or past them all with the transformer's `output`.

    `noisy` are the latents with which the step starts, in the layout that the transformer takes.
    """

    conditioning: Any
    seeds: tuple[int, ...]
    step: int
    noisy: Tensor
    hidden: Any | None = None
    blocks: int = 0
    output: Tensor | None = None

    def __getitem__(self, rows: list[int]) -> "StepState":
        return replace(
            self,
            seeds=tuple(self.seeds[row] for row in rows),
            noisy=self.noisy[rows],
            hidden=None if self.hidden is None else self.hidden[rows],
            output=None if self.output is None else self.output[rows],
        )

    @property
    def finished(self) -> Tensor:
        """The transformer's output, of a state whose step is at its end."""
        assert self.output is not None
        return self.output


def for_each(of_one: Shared, count: int) -> Shared:
    """What belongs to a prompt (1, ...) once for each of `count` candidates; None stays None."""
    return None if of_one is None else of_one.expand(count, *of_one.shape[1:]).contiguous()
