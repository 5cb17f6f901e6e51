"""How long pieces of work take: warmed up, then in rounds, in which different ones take turns.

What disturbs the machine for a while then disturbs all alike.
"""

import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from time import perf_counter
from typing import Any, Self, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

# FOLDED: Floating-point operations of a piece of work, counted as it runs: a multiplication and an addition are two.


def count_flops(work: Callable[[], object]) -> int:
    """Matrix products, convolutions and attention, eagerly run.

    Attention is taken apart into its products while counting: PyTorch counts nothing for the fused one on a CPU.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())


# FOLDED: The most memory that a piece of work holds at once, beyond what was there before it, in bytes.


def peak_memory(work: Callable[[], object], device: torch.device) -> int:
    """What CUDA allocates; on other devices the tensors that operations leave behind, without their inner scratch."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveTensors() as live:
        work()
    return live.most


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors made while it is on, as long as somebody holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._now = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {_key(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and _key(tensor) not in given | self._seen:
                self._hold(tensor.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._seen.add(key)
        self._now += size
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._now -= size


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


Work = Callable[[], object]
Key = TypeVar("Key", bound=Hashable)


class Timing(BaseModel):
    """Milliseconds over so many rounds: the median, and the quartiles that hold half of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    median: float
    lower_quartile: float
    upper_quartile: float
    fastest: float
    rounds: int

    @classmethod
    def of(cls, milliseconds: list[float]) -> Self:
        """Of the rounds."""
        lower, median, upper = np.quantile(milliseconds, (0.25, 0.5, 0.75)).tolist()
        return cls(
            median=median,
            lower_quartile=lower,
            upper_quartile=upper,
            fastest=min(milliseconds),
            rounds=len(milliseconds),
        )


def timed(work: Work, device: torch.device, rounds: int, warm_up: int) -> Timing:
    """One piece of work; `warm_up` rounds before are not counted."""
    return timed_in_turns({"": work}, device, rounds, warm_up)[""]


def timed_in_turns(
    works: Mapping[Key, Work],
    device: torch.device,
    rounds: int,
    warm_up: int,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[Key, Timing]:
    """Each once in every round; `warm_up` rounds before are not counted. `on_round` is told how many are done."""
    took: dict[Key, list[float]] = {key: [] for key in works}
    for done in range(1, warm_up + rounds + 1):
        for key, work in works.items():
            took[key].append(_milliseconds(work, device))
        on_round(done)
    return {key: Timing.of(milliseconds[warm_up:]) for key, milliseconds in took.items()}


def _milliseconds(work: Work, device: torch.device) -> float:
    """Of one run, from an idle device to an idle device; on CUDA by the device's own clock."""
    if device.type == "cuda":
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(device)
        torch.cuda.synchronize(device)
        started.record(stream)
        work()
        ended.record(stream)
        torch.cuda.synchronize(device)
        return started.elapsed_time(ended)
    before = perf_counter()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return 1000 * (perf_counter() - before)
