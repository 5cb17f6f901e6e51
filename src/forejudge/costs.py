"""What drawing, judging and finishing cost here, measured with other seeds before the clock of a search starts."""

import math
from dataclasses import replace

from forejudge.budget import Costs
from forejudge.device import is_out_of_memory
from forejudge.draw import Drawing
from forejudge.generators.base import Generator, Sampling
from forejudge.noise import candidate_seed
from forejudge.verifiers.base import Verifier

_ROUNDS = 3  # the first warms up, the slowest of the others counts


class CostModel:
    """Costs by settings, measured once and kept as long as the models are loaded."""

    def __init__(self, generator: Generator, verifier: Verifier) -> None:
        self._generator, self._verifier = generator, verifier
        self._known: dict[Sampling, Costs] = {}

    def measure(self, prompt: str, sampling: Sampling, largest: int, seconds: float) -> Costs:
        """Costs of chunks of 1, 2, 4, ... candidates, up to `largest`, and of finishing one.

        Larger chunks than the first one that takes more than `seconds`, or more memory than there is, are left out.
        """
        costs = self._known.get(sampling) or self._measure(prompt, sampling, 1)
        while (size := 2 * max(costs.chunk)) <= largest and max(costs.chunk.values()) < seconds:
            try:
                chunk = self._measure(prompt, sampling, size).chunk
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                chunk = {size: math.inf}  # never drawn, and not tried again
            costs = replace(costs, chunk={**costs.chunk, **chunk})
        self._known[sampling] = costs
        return costs

    def _measure(self, prompt: str, sampling: Sampling, size: int) -> Costs:
        rounds = [self._round(prompt, sampling, size, number) for number in range(_ROUNDS)][1:]
        encode, chunk, finish = (max(times) for times in zip(*rounds, strict=True))
        return Costs(encode, {size: chunk}, finish)

    def _round(self, prompt: str, sampling: Sampling, size: int, number: int) -> tuple[float, float, float]:
        """Seconds to encode, to draw and judge `size` candidates, and to finish one of them."""
        drawing = Drawing(self._generator, self._verifier, prompt, sampling)
        seeds = tuple(candidate_seed(number, "warm-up", size, index) for index in range(size))
        candidates, _ = drawing.judge(seeds)
        drawing.finish(candidates[[0]])
        spent = drawing.clock.seconds
        return spent["encode"], spent["prefix"] + spent["verify"], spent["suffix"] + spent["decode"]
