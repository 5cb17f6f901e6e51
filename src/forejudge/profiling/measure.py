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


def count_flops(workload: Callable[[], object]) -> int:
    """Matrix products, convolutions and attention, eagerly run.

    Attention is taken apart into its products while counting: PyTorch counts nothing for the fused one on a CPU.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        workload()
    return int(counter.get_total_flops())


# FOLDED: The most memory that a piece of work holds at once, beyond what was there before it, in bytes.


def peak_memory(workload: Callable[[], object], device: torch.device) -> int:
    """What CUDA allocates; on other devices the tensors that operations leave behind, without their inner scratch."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        workload()
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveTensors() as live:
        workload()
    return live.peak


class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of tensors made while it is on, as long as somebody holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._current = 0
        self._tracked: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        input_keys = {_key(tensor) for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and _key(tensor) not in input_keys | self._tracked:
                self._track(tensor.untyped_storage())
        return out

    def _track(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._tracked.add(key)
        self._current += size
        self.peak = max(self.peak, self._current)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._tracked.discard(key)
        self._current -= size


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


Workload = Callable[[], object]
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


def measure_time(workload: Workload, device: torch.device, rounds: int, warm_up: int) -> Timing:
    """One piece of work; `warm_up` rounds before are not counted."""
    return measure_time_interleaved({"": workload}, device, rounds, warm_up)[""]


def measure_time_interleaved(
    workloads: Mapping[Key, Workload],
    device: torch.device,
    rounds: int,
    warm_up: int,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[Key, Timing]:
    """Each once in every round; `warm_up` rounds before are not counted. `on_round` is told how many are done."""
    durations: dict[Key, list[float]] = {key: [] for key in workloads}
    for done in range(1, warm_up + rounds + 1):
        for key, workload in workloads.items():
            durations[key].append(_milliseconds(workload, device))
        on_round(done)
    return {key: Timing.of(milliseconds[warm_up:]) for key, milliseconds in durations.items()}


def _milliseconds(workload: Workload, device: torch.device) -> float:
    """Of one run, from an idle device to an idle device; on CUDA by the device's own clock."""
    if device.type == "cuda":
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(device)
        torch.cuda.synchronize(device)
        started.record(stream)
        workload()
        ended.record(stream)
        torch.cuda.synchronize(device)
        return started.elapsed_time(ended)
    before = perf_counter()
    workload()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return 1000 * (perf_counter() - before)
