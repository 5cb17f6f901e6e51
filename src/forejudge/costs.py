"""What drawing, judging and finishing cost here, measured with other seeds before the clock of a search starts."""

import torch

from forejudge.budget import Costs
from forejudge.clock import StageClock
from forejudge.draw import draw_and_judge, finish, is_out_of_memory
from forejudge.generators.base import Generator, Sampling
from forejudge.noise import candidate_seed
from forejudge.verifiers.base import Verifier

_ROUNDS = 3  # the first warms up, the slowest of the others counts


class CostModel:
    """Costs per settings, measured once and kept as long as the models are loaded."""

    def __init__(self, generator: Generator, verifier: Verifier, device: torch.device) -> None:
        self.generator, self.verifier, self.device = generator, verifier, device
        self._known: dict[tuple[Sampling, int], Costs] = {}

    def measure(self, prompt: str, sampling: Sampling, largest: int) -> Costs:
        """Costs of chunks of 1, 2, 4, ... up to `largest` candidates, and of finishing one."""
        key = (sampling, largest)
        if key not in self._known:
            self._known[key] = self._measure(prompt, sampling, largest)
        return self._known[key]

    def _measure(self, prompt: str, sampling: Sampling, largest: int) -> Costs:
        chunk: dict[int, float] = {}
        size = 1
        while size <= largest:
            try:
                rounds = [self._round(prompt, sampling, size, at) for at in range(_ROUNDS)]
            except RuntimeError as error:
                if not chunk or not is_out_of_memory(error):
                    raise
                break
            encode, chunk[size], completion = (max(times[1:]) for times in zip(*rounds, strict=True))
            if size == 1:
                one = Costs(encode, chunk, completion)
            size *= 2
        return one

    def _round(self, prompt: str, sampling: Sampling, size: int, number: int) -> tuple[float, float, float]:
        """Seconds to encode, to draw and judge `size` candidates, and to finish one of them."""
        clock = StageClock(self.device)
        seeds = tuple(candidate_seed(number, "warm-up", size, index) for index in range(size))
        with clock.stage("encode"):
            conditioning = self.generator.encode(prompt, sampling)
        candidates, _ = draw_and_judge(self.generator, self.verifier, prompt, conditioning, seeds, clock)
        finish(self.generator, candidates[[0]], clock, sampling.steps)
        spent = clock.seconds
        return spent["encode"], spent["prefix"] + spent["verify"], spent["suffix"] + spent["decode"]
