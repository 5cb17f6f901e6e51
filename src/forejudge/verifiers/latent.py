"""Reading the latent that the last block predicts: the paper's baseline "MLLM w/ AE"."""

from torch import Tensor

from forejudge.generators.base import Architecture
from forejudge.types import Candidates, latent_stage
from forejudge.verifiers.reading import Reading


class LatentReading(Reading):
    """latents_NCHW of the first step, a token for each place of the latent grid, row by row."""

    name, stage = "latent", latent_stage()

    def width(self, architecture: Architecture) -> int:
        """See `Reading.width`."""
        return architecture.latent_channels

    def tokens(self, candidates: Candidates) -> Tensor:
        """See `Reading.tokens`."""
        return candidates.tensor(self.stage).flatten(2).transpose(1, 2)
