"""The nouns of forejudge, frozen. Nothing here computes.

Shape letters used in names throughout the package:
N candidates (or any batch), T tokens of a hidden state, L text tokens, D width, C latent channels, H and W height
and width, V vocabulary. `hidden_NTD` is a tensor of shape (N, T, D).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    View = Tensor | tuple[Image, ...]


class Phase(IntEnum):
    """How far inside a step a candidate has come."""

    NOISE = 0
    PREFIX = 1
    LATENT = 2
    IMAGE = 3


@dataclass(frozen=True, order=True)
class Stage:
    """A point on a candidate's way: NOISE < prefix(k) < latent() < IMAGE. Steps count from 0.

    `blocks` counts transformer blocks that have run in `step`; the paper's h_7 is blocks=8.
    """

    step: int
    phase: Phase
    blocks: int = 0

    def __str__(self) -> str:
        name = self.phase.name.lower()
        if self.phase is Phase.PREFIX:
            return f"{name}({self.blocks} blocks, step {self.step})"
        return f"{name}(step {self.step})" if self.phase is Phase.LATENT else name


NOISE = Stage(0, Phase.NOISE)
IMAGE = Stage(2**31 - 1, Phase.IMAGE)


def prefix_stage(blocks: int, step: int = 0) -> Stage:
    """The hidden state after the first `blocks` blocks of a step: the view is hidden_NTD."""
    return Stage(step, Phase.PREFIX, blocks)


def latent_stage(step: int = 0) -> Stage:
    """The clean latent that a step predicts: the view is latents_NCHW, as the decoder takes them."""
    return Stage(step, Phase.LATENT)


@dataclass(frozen=True)
class Candidates:
    """Candidates of one prompt, all advanced to the same stage.

    `views` holds what verifiers may see: hidden_NTD at a prefix, latents_NCHW at a latent, PIL images at IMAGE.
    `state` is what their generator continues from and nobody else understands; it is indexed by rows, too.
    """

    seeds: tuple[int, ...]
    stage: Stage
    views: Mapping[Stage, View]
    state: Any

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, rows: list[int]) -> Candidates:
        """The candidates of the given rows, in that order."""
        seeds = tuple(self.seeds[row] for row in rows)
        views = {stage: _rows(view, rows) for stage, view in self.views.items()}
        return Candidates(seeds, self.stage, views, self.state[rows])

    def tensor(self, stage: Stage) -> Tensor:
        """The view at a prefix or a latent."""
        view = self.views[stage]
        assert not isinstance(view, tuple), f"{stage} shows pictures"
        return view

    @property
    def images(self) -> tuple[Image, ...]:
        """The view at IMAGE."""
        view = self.views[IMAGE]
        assert isinstance(view, tuple)
        return view

    def without_views(self) -> Candidates:
        """What is needed to go on, and finished pictures; all other views are let go."""
        views = {stage: view for stage, view in self.views.items() if stage == IMAGE}
        return Candidates(self.seeds, self.stage, views, self.state)


def _rows(view: View, rows: list[int]) -> View:
    return tuple(view[row] for row in rows) if isinstance(view, tuple) else view[rows]


@dataclass(frozen=True)
class Verdict:
    """What a verifier says of one candidate.

    `score` is higher for better and comparable within one verifier and one prompt. The others are there where the
    verifier has them: `log_odds` of yes against no, `p_yes` and `p_no` over the whole vocabulary, and `probability`,
    the calibrated probability that the picture fits the prompt.
    """

    score: float
    log_odds: float | None = None
    p_yes: float | None = None
    p_no: float | None = None
    probability: float | None = None
