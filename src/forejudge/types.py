"""Nouns of forejudge, frozen: stages, candidates and verdicts.

Shape letters used in names throughout the package:
N candidates (or any batch), T tokens of a hidden state, L text tokens, D width, C latent channels, H and W height
and width, V vocabulary. `hidden_NTD` is a tensor of shape (N, T, D).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from forejudge.errors import BrokenImage

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    View = Tensor | tuple[Image | None, ...]

Grid = tuple[int, int]  # rows and columns of tokens, which are in row-major order
PASS_THRESHOLD = 0.5  # calibrated probability from which on a candidate passes


class Phase(IntEnum):
    """Progress of a candidate within a denoising step."""

    NOISE = 0
    PREFIX = 1
    LATENT = 2
    IMAGE = 3


@dataclass(frozen=True, order=True)
class Stage:
    """Point on a candidate's way: NOISE < prefix(k) < latent() < IMAGE. Steps count from 0.

    `blocks` counts the transformer blocks that have run in `step`; the paper's h_7 is blocks=8.
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
    """Return the stage after the first `blocks` blocks of a step, whose view is hidden_NTD."""
    return Stage(step, Phase.PREFIX, blocks)


def latent_stage(step: int = 0) -> Stage:
    """Return the stage of the clean latents a step predicts, whose view is latents_NCHW.

    They are scaled as a pipeline returns them for output_type="latent": before the decoder's `scaling_factor`.
    """
    return Stage(step, Phase.LATENT)


@dataclass(frozen=True)
class Candidates:
    """Candidates of one prompt, all advanced to the same stage.

    `views` holds what verifiers may read: hidden_NTD at a prefix, latents_NCHW at a latent, PIL images at IMAGE, where
    None stands for an image with values that are not finite.
    `state` is opaque: only the generator continues from it. Both are indexed by row. `grid` is that of the tokens of a
    hidden state; None stands for a square. `text_LD` holds the text states of their prompt, without padding, where the
    generator gives them.
    """

    seeds: tuple[int, ...]
    stage: Stage
    views: Mapping[Stage, View]
    state: Any
    grid: Grid | None = None
    text_LD: Tensor | None = None

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, rows: list[int]) -> Candidates:
        """Select candidates by row, in the order given."""
        seeds = tuple(self.seeds[row] for row in rows)
        views = {stage: _rows(view, rows) for stage, view in self.views.items()}
        return replace(self, seeds=seeds, views=views, state=self.state[rows])

    def tensor(self, stage: Stage) -> Tensor:
        """Return the view at a prefix or a latent."""
        view = self.views[stage]
        assert not isinstance(view, tuple), f"the view at {stage} holds images"
        return view

    @property
    def images(self) -> tuple[Image, ...]:
        """View at IMAGE. Raises BrokenImage, naming the seed, for an image that is not finite."""
        view = self.views[IMAGE]
        assert isinstance(view, tuple)
        images = tuple(image for image in view if image is not None)
        if len(images) < len(view):
            raise BrokenImage(self.seeds[view.index(None)])
        return images

    @property
    def finite_rows(self) -> list[int]:
        """Rows whose image is finite, or not decoded yet."""
        view = self.views.get(IMAGE)
        return [row for row in range(len(self)) if not isinstance(view, tuple) or view[row] is not None]

    def without_views(self) -> Candidates:
        """Drop all views except finished images; the state stays."""
        views = {stage: view for stage, view in self.views.items() if stage == IMAGE}
        return replace(self, views=views)


def _rows(view: View, rows: list[int]) -> View:
    return tuple(view[row] for row in rows) if isinstance(view, tuple) else view[rows]


@dataclass(frozen=True)
class Verdict:
    """Output of a verifier for one candidate; fields that the verifier does not give are None.

    `score` is higher for better and comparable within one verifier and one prompt. `log_odds` is that of yes against
    no, `p_yes` and `p_no` are probabilities over the whole vocabulary, and `probability` is the calibrated probability
    that the image fits the prompt.
    """

    score: float
    log_odds: float | None = None
    p_yes: float | None = None
    p_no: float | None = None
    probability: float | None = None


BROKEN = Verdict(score=-math.inf)
"""Verdict on a broken image, which no verifier is shown."""


def passed(probability: float | None) -> bool | None:
    """Return whether a calibrated probability means yes; None without calibration."""
    return None if probability is None else probability >= PASS_THRESHOLD
