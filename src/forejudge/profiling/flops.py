"""Floating-point operations of a piece of work, counted as it runs: a multiplication and an addition are two."""

from collections.abc import Callable

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(work: Callable[[], object]) -> int:
    """Matrix products, convolutions and attention, eagerly run.

    Attention is taken apart into its products while counting: PyTorch counts nothing for the fused one on a CPU.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return int(counter.get_total_flops())
