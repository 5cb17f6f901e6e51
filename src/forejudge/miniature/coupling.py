"""Noise and scene, coupled: what a prompt leaves open is read off the noise itself.

One-step generation learns a function of noise. Where every open choice (place, size, colour, background) is a
function of the noise, plain regression learns that function; where the noise is undecided between two places, the
regression draws a little of both. Those ghosts and doubles are the mistakes a verifier is for.

The picture is divided into four quadrants. Each quadrant mean of a noise channel is a standard normal number. Object
j stands in the free quadrant where channel 4j is highest; channels 4j+1, 4j+2 and 4j+3 there give its offset and
size, a contrast inside the quadrant its colour. A relation narrows the free quadrants to one side of the picture.

Shape letters: N scenes, C noise channels (16), Q quadrants (4), K object slots (4).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from forejudge.evaluation.description import Description
from forejudge.evaluation.metadata import RELATIONS
from forejudge.miniature.scene import COLOUR_NAMES, IMAGE_SIZE, MAX_OBJECTS, SceneBatch
from forejudge.miniature.shapes import KINDS

NOISE_SHAPE = (16, 8, 8)
SMALLEST_RADIUS, LARGEST_RADIUS = 7.5, 10.5
BACKGROUND_RANGE = (0.45, 0.65)
_MARGIN = 1.4  # pixels kept free around an object beyond its radius times 1.2, in its quadrant
_RELATION_OFFSET = 0.4  # smaller offsets keep a relation plain also across the diagonal

# Quadrants: 0 upper left, 1 upper right, 2 lower left, 3 lower right; sides as the first object needs them.
_SIDE_OF_RELATION = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool)


@dataclass(frozen=True)
class Asked:
    """N descriptions as tensors: what the prompts fix. -1 stands for "left open"."""

    kind_NK: Tensor
    colour_NK: Tensor
    present_NK: Tensor
    relation_N: Tensor

    @classmethod
    def of(cls, descriptions: list[Description]) -> "Asked":
        kind = torch.zeros(len(descriptions), MAX_OBJECTS, dtype=torch.long)
        colour = torch.full_like(kind, -1)
        present = torch.zeros_like(kind, dtype=torch.bool)
        relation = torch.full((len(descriptions),), -1)
        for row, description in enumerate(descriptions):
            objects = description.wanted * description.count
            for slot, wanted in enumerate(objects):
                kind[row, slot] = KINDS.index(wanted.kind)
                present[row, slot] = True
                if wanted.colour:
                    colour[row, slot] = COLOUR_NAMES.index(wanted.colour)
            if description.relation:
                relation[row] = RELATIONS.index(description.relation)
        return cls(kind, colour, present, relation)


def couple(asked: Asked, noise_NCHW: Tensor) -> SceneBatch:
    """The scenes that the prompts ask for, their open choices taken from standard normal noise."""
    mean_NCQ, contrast_NCQ = _quadrant_statistics(noise_NCHW)
    quadrant_NK = _choose_quadrants(asked, mean_NCQ[:, ::4])
    parts = {name: _at(mean_NCQ[:, shift::4], quadrant_NK) for shift, name in _CHANNELS.items()}
    radius_NK = SMALLEST_RADIUS + (LARGEST_RADIUS - SMALLEST_RADIUS) * parts["size"]
    open_colour_NK = (_at(contrast_NCQ[:, ::4], quadrant_NK) * len(COLOUR_NAMES)).long()
    low, high = BACKGROUND_RANGE
    overall_N = _uniform(contrast_NCQ[:, 1].sum(1) / 2)
    return SceneBatch(
        kind_NK=asked.kind_NK,
        colour_NK=torch.where(asked.colour_NK < 0, open_colour_NK, asked.colour_NK),
        centre_NK2=_centres(quadrant_NK, parts["x"], parts["y"], radius_NK, asked.relation_N),
        radius_NK=radius_NK,
        present_NK=asked.present_NK,
        background_N=low + (high - low) * overall_N,
    )


_CHANNELS = {1: "x", 2: "y", 3: "size"}


def _uniform(normal: Tensor) -> Tensor:
    """Standard normal to uniform in (0, 1)."""
    return torch.special.ndtr(normal).clamp(1e-4, 1 - 1e-4)


def _quadrant_statistics(noise_NCHW: Tensor) -> tuple[Tensor, Tensor]:
    """Quadrant means and left-minus-right contrasts of every channel, each standard normal: (N, C, Q)."""
    halves = noise_NCHW.unflatten(2, (2, -1)).unflatten(4, (2, 2, -1))  # N C 2 h 2 2 w
    count = halves.shape[3] * halves.shape[5] * halves.shape[6]
    sums = halves.sum(dim=(3, 6)) / count**0.5  # N C rows columns sides
    return sums.sum(-1).flatten(2), (sums[..., 0] - sums[..., 1]).flatten(2)


def _choose_quadrants(asked: Asked, score_NKQ: Tensor) -> Tensor:
    """For each object in turn the free quadrant of highest score: (N, K)."""
    free_NQ = torch.ones(score_NKQ.shape[0], 4, dtype=torch.bool)
    related = asked.relation_N >= 0
    side_NQ = _SIDE_OF_RELATION[asked.relation_N.clamp(min=0)]
    chosen = []
    for slot in range(MAX_OBJECTS):
        allowed_NQ = free_NQ.clone()
        if slot < 2:
            side = side_NQ if slot == 0 else ~side_NQ
            allowed_NQ &= side | ~related[:, None]
        quadrant_N = score_NKQ[:, slot].masked_fill(~allowed_NQ, -torch.inf).argmax(1)
        free_NQ = free_NQ.scatter(1, quadrant_N[:, None], False)
        chosen.append(quadrant_N)
    return torch.stack(chosen, dim=1)


def _at(statistic_NKQ: Tensor, quadrant_NK: Tensor) -> Tensor:
    """The uniform number that each object finds at its own quadrant: (N, K)."""
    return _uniform(statistic_NKQ.gather(2, quadrant_NK[..., None]).squeeze(2))


def _centres(quadrant_NK: Tensor, u_NK: Tensor, v_NK: Tensor, radius_NK: Tensor, relation_N: Tensor) -> Tensor:
    cell = IMAGE_SIZE / 2
    room_NK = (cell / 2 - 1.2 * radius_NK - _MARGIN).clamp(min=0)
    room_NK = room_NK * torch.where(relation_N >= 0, _RELATION_OFFSET, 1.0)[:, None]
    x_NK = (quadrant_NK % 2 + 0.5) * cell + (2 * u_NK - 1) * room_NK
    y_NK = (quadrant_NK // 2 + 0.5) * cell + (2 * v_NK - 1) * room_NK
    return torch.stack([x_NK, y_NK], dim=-1)
