"""Costs of a piece of work: FLOPs and weights counted, peak memory, and time.

Times are taken in rounds in which all workloads take turns, so that a disturbance of the machine affects all alike.
"""

import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from forejudge.profiling.figures import Timing

Workload = Callable[[], object]
KeyT = TypeVar("KeyT", bound=Hashable)


def measure_time(workload: Workload, device: torch.device, rounds: int, warm_up: int) -> Timing:
    """Time one workload in `rounds` rounds, after `warm_up` uncounted ones."""
    return measure_time_interleaved({"": workload}, device, rounds, warm_up)[""]


def measure_time_interleaved(
    workloads: Mapping[KeyT, Workload],
    device: torch.device,
    rounds: int,
    warm_up: int,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[KeyT, Timing]:
    """Summarize `time_rounds` of each workload."""
    durations = time_rounds(workloads, device, rounds, warm_up, on_round)
    return {key: Timing.from_rounds(milliseconds) for key, milliseconds in durations.items()}


def time_rounds(
    workloads: Mapping[KeyT, Workload],
    device: torch.device,
    rounds: int,
    warm_up: int,
    on_round: Callable[[int], None] = lambda done: None,
) -> dict[KeyT, list[float]]:
    """Run every workload once a round and return its milliseconds in each round.

    `on_round` gets the number of rounds done, `warm_up` uncounted ones included.
    """
    durations: dict[KeyT, list[float]] = {key: [] for key in workloads}
    for done in range(1, warm_up + rounds + 1):
        for key, workload in workloads.items():
            durations[key].append(_milliseconds(workload, device))
        on_round(done)
    return {key: milliseconds[warm_up:] for key, milliseconds in durations.items()}


def _milliseconds(workload: Workload, device: torch.device) -> float:
    """Time one run from an idle device to an idle device; on CUDA by the device's own events."""
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
    if device.type not in ("cpu", "meta"):
        torch.accelerator.synchronize(device)
    return 1000 * (perf_counter() - before)


@dataclass(frozen=True)
class StageCost:
    """FLOPs of a stage for one candidate, and the bytes of weights that it reads once for a whole batch."""

    flops: int
    weight_bytes: int

    def __add__(self, other: "StageCost") -> "StageCost":
        return StageCost(self.flops + other.flops, self.weight_bytes + other.weight_bytes)


def count_cost(workload: Workload, modules: Iterable[nn.Module]) -> StageCost:
    """Run eager work once and count its FLOPs and the weights of `modules` that it reads. Works on any device.

    An embedding's weights count only where another operation reads them too, such as a tied output layer: of a lookup
    only a few rows are read.
    """
    with _WeightReads(modules) as reads:
        flops = count_flops(workload)
    return StageCost(flops, reads.bytes)


def count_flops(workload: Workload) -> int:
    """Run eager work once and count the FLOPs of its matrix products, convolutions and attention (1 MAC = 2 FLOPs).

    Attention runs as separate products meanwhile: PyTorch counts 0 for the fused one on a CPU
    (https://github.com/pytorch/pytorch/issues/195460).
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        workload()
    return int(counter.get_total_flops())


def peak_memory(workload: Workload, device: torch.device) -> int:
    """Return the bytes a workload holds at once beyond what was allocated before it.

    CUDA's allocator tells; on other devices the tensors count that operations return, without their inner scratch.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        workload()
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveTensors() as live:
        workload()
    return live.peak


class _WeightReads(TorchDispatchMode):
    """Count the bytes of weights that operations take as inputs."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        super().__init__()
        self._unread = {_key(weight): weight.nbytes for module in modules for weight in module.parameters()}
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket is not torch.ops.aten.embedding:
            self.bytes += sum(self._unread.pop(key, 0) for key in _keys((args, kwargs)))
        return func(*args, **(kwargs or {}))


class _LiveTensors(TorchDispatchMode):
    """Count the bytes of tensors made while it is active, as long as they are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._current = 0
        self._tracked: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        input_keys = _keys((args, kwargs))
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


def _keys(tree: Any) -> set[int]:
    return {_key(tensor) for tensor in tree_leaves(tree) if isinstance(tensor, Tensor)}


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
