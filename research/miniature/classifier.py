"""What the classifier learns from: rendered scenes, worn and ghosted as a generator might draw them, and their truth.

No picture of the generator and no word of the detector is among it. An object of little opacity, alone or mixed with
another one, is no object.

Shape letters: N pictures, Q quadrants (4, in reading order), K object slots (4), H and W pixels.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import ResNetForImageClassification

from forejudge.miniature.classifier import NO_COLOUR, NO_KIND, QUADRANTS, quadrant_logits
from forejudge.miniature.scenes import IMAGE_SIZE, KINDS, MAX_OBJECTS, NOISE_SHAPE, Asked, SceneBatch, couple, render
from research.miniature.train import LossAtStep, generator_at

_PRESENT, _GHOSTS = 0.7, 0.25  # shares of the quadrants
_SOLID, _GHOSTLY = (0.85, 1.0), (0.1, 0.55)  # opacities of what is an object, and of what is none
_DRIFT = 3.0  # pixels off its place
_NOISE, _CAST = 0.05, 0.03  # largest deviation of noise, and that of a colour cast, of the range of a channel


@dataclass(frozen=True)
class Examples:
    """Pictures (N, 3, 64, 64) in [0, 1] with the kind and the colour in each quadrant, of which the last is none."""

    pictures_N3HW: Tensor
    kind_NQ: Tensor
    colour_NQ: Tensor


def examples(count: int, source: torch.Generator) -> Examples:
    """Scenes of random objects in random quadrants, some of them ghosts, all pictures worn."""
    scenes = _scenes(count, source)
    other = replace(_scenes(count, source), background_N=scenes.background_N)
    ghost_NQ = torch.rand(count, QUADRANTS, generator=source) < _GHOSTS
    opacity_NQ = torch.where(ghost_NQ, _uniform(count, _GHOSTLY, source), _uniform(count, _SOLID, source))
    trace_NQ = _uniform(count, (0.0, 1.0), source) * (1 - opacity_NQ).clamp(max=_GHOSTLY[1])
    background = scenes.background_N.view(-1, 1, 1, 1)
    pictures_N3HW = background + _everywhere(opacity_NQ) * (render(scenes) - background)
    pictures_N3HW = pictures_N3HW + _everywhere(trace_NQ) * (render(other) - background)
    return Examples(
        _worn(pictures_N3HW, source),
        _by_quadrant(scenes, scenes.kind_NK, NO_KIND).masked_fill(ghost_NQ, NO_KIND),
        _by_quadrant(scenes, scenes.colour_NK, NO_COLOUR).masked_fill(ghost_NQ, NO_COLOUR),
    )


def classifier_loss(model: ResNetForImageClassification, batch_size: int, seed: int) -> LossAtStep:
    """Cross-entropy of kinds and of colours over the quadrants of fresh pictures, as a function of the step."""

    def loss_at_step(step: int) -> Tensor:
        seen = examples(batch_size, generator_at(seed, step))
        kind_NQK, colour_NQC = quadrant_logits(model, seen.pictures_N3HW.to(model.device))
        kinds = F.cross_entropy(kind_NQK.flatten(0, 1), seen.kind_NQ.flatten().to(model.device))
        return kinds + F.cross_entropy(colour_NQC.flatten(0, 1), seen.colour_NQ.flatten().to(model.device))

    return loss_at_step


@torch.no_grad()
def held_out_accuracy(model: ResNetForImageClassification, count: int, seed: int) -> float:
    """The share in [0, 1] of quadrants of `count` fresh pictures of which kind and colour, or none, are told right."""
    seen = examples(count, generator_at(seed, 0))
    kind_NQ, colour_NQ = (
        logits.argmax(-1).cpu() for logits in quadrant_logits(model, seen.pictures_N3HW.to(model.device))
    )
    return float(((kind_NQ == seen.kind_NQ) & (colour_NQ == seen.colour_NQ)).float().mean())


def _scenes(count: int, source: torch.Generator) -> SceneBatch:
    """Each object of a kind, and anywhere in its quadrant, by itself: no prompt asks for them."""
    kind_NK = torch.randint(len(KINDS), (count, MAX_OBJECTS), generator=source)
    present_NK = torch.rand(count, MAX_OBJECTS, generator=source) < _PRESENT
    asked = Asked(kind_NK, torch.full_like(kind_NK, -1), present_NK, torch.full((count,), -1))
    scenes = couple(asked, torch.randn(count, *NOISE_SHAPE, generator=source))
    drift_NK2 = _DRIFT * (2 * torch.rand(scenes.centre_NK2.shape, generator=source) - 1)
    return replace(scenes, centre_NK2=scenes.centre_NK2 + drift_NK2)


def _by_quadrant(scenes: SceneBatch, value_NK: Tensor, none: int) -> Tensor:
    """(N, Q): the value of the object in each quadrant, `none` where none is."""
    side_NK2 = (scenes.centre_NK2 > IMAGE_SIZE / 2).long()
    quadrant_NK = side_NK2[..., 0] + 2 * side_NK2[..., 1]
    empty_NQ = torch.full((len(value_NK), QUADRANTS), none)
    return empty_NQ.scatter(1, quadrant_NK, value_NK.masked_fill(~scenes.present_NK, none))


def _uniform(count: int, bounds: tuple[float, float], source: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(count, QUADRANTS, generator=source)


def _everywhere(value_NQ: Tensor) -> Tensor:
    """(N, 1, 64, 64): each quadrant's value at all its pixels."""
    return F.interpolate(value_NQ.view(-1, 1, 2, 2), size=(IMAGE_SIZE, IMAGE_SIZE))


def _worn(pictures_N3HW: Tensor, source: torch.Generator) -> Tensor:
    """Blurred, noisy and off in colour, each picture by its own amount."""
    soft = F.avg_pool2d(F.avg_pool2d(pictures_N3HW, 3, 1, 1, count_include_pad=False), 3, 1, 1, count_include_pad=False)
    blur, noise = torch.rand(2, len(pictures_N3HW), 1, 1, 1, generator=source)
    cast_N3 = _CAST * torch.randn(len(pictures_N3HW), 3, 1, 1, generator=source)
    grain = _NOISE * noise * torch.randn(pictures_N3HW.shape, generator=source)
    return (torch.lerp(pictures_N3HW, soft, blur) + cast_N3 + grain).clamp(0, 1)
