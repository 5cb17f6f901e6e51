"""Reading a transformer's hidden state after its first blocks: VHS (paper: s = LLM(C(h), p))."""

from torch import Tensor

from forejudge.errors import MismatchError
from forejudge.generators.base import Architecture
from forejudge.types import Candidates, prefix_stage
from forejudge.verifiers.reading import Reading


class HiddenStateReading(Reading):
    """hidden_NTD after `blocks` blocks of the first step; the paper's h_7 is blocks=8."""

    def __init__(self, blocks: int) -> None:
        self.blocks, self.name, self.stage = blocks, f"hidden:{blocks}", prefix_stage(blocks)

    def width(self, architecture: Architecture) -> int:
        """See `Reading.width`."""
        if self.blocks > architecture.num_blocks:
            raise MismatchError(
                f"the verifier reads after {self.blocks} blocks, but the generator has only {architecture.num_blocks}"
            )
        return architecture.width

    def tokens(self, candidates: Candidates) -> Tensor:
        """See `Reading.tokens`."""
        return candidates.tensor(self.stage)
