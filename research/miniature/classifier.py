"""Training data and loss of the classifier: rendered scenes, degraded and ghosted, with their ground truth.

No generated image and no detection is part of it. An object of low opacity, alone or mixed with another one, is no
object.

Shape letters: N images, Q quadrants (4, in reading order), K object slots (4), H and W pixels.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import ResNetForImageClassification

from forejudge.miniature.classifier import NO_COLOR, NO_KIND, QUADRANTS, quadrant_logits
from forejudge.miniature.scenes import (
    IMAGE_SIZE,
    KINDS,
    MAX_OBJECTS,
    NOISE_SHAPE,
    SceneBatch,
    SceneConstraints,
    couple,
    render,
)
from research.miniature.train import LossAtStep, generator_for_step

_PRESENT_SHARE, _GHOST_SHARE = 0.7, 0.25  # shares of the quadrants
_SOLID_OPACITY, _GHOST_OPACITY = (0.85, 1.0), (0.1, 0.55)  # opacities of objects, and of ghosts
_MAX_DRIFT = 3.0  # pixels
_MAX_NOISE, _COLOR_CAST_STD = 0.05, 0.03  # standard deviations, in shares of a channel's range


@dataclass(frozen=True)
class Examples:
    """Images (N, 3, 64, 64) in [0, 1] with the kind and the color in each quadrant; the last index is none."""

    images_N3HW: Tensor
    kind_NQ: Tensor
    color_NQ: Tensor


def sample_examples(count: int, generator: torch.Generator) -> Examples:
    """Sample scenes of random objects in random quadrants, some of them ghosts, all images degraded."""
    scenes = _scenes(count, generator)
    other = replace(_scenes(count, generator), background_N=scenes.background_N)
    ghost_NQ = torch.rand(count, QUADRANTS, generator=generator) < _GHOST_SHARE
    opacity_NQ = torch.where(
        ghost_NQ, _uniform(count, _GHOST_OPACITY, generator), _uniform(count, _SOLID_OPACITY, generator)
    )
    trace_NQ = _uniform(count, (0.0, 1.0), generator) * (1 - opacity_NQ).clamp(max=_GHOST_OPACITY[1])
    background = scenes.background_N.view(-1, 1, 1, 1)
    images_N3HW = background + _upsample_quadrants(opacity_NQ) * (render(scenes) - background)
    images_N3HW = images_N3HW + _upsample_quadrants(trace_NQ) * (render(other) - background)
    return Examples(
        _degraded(images_N3HW, generator),
        _scatter_to_quadrants(scenes, scenes.kind_NK, NO_KIND).masked_fill(ghost_NQ, NO_KIND),
        _scatter_to_quadrants(scenes, scenes.color_NK, NO_COLOR).masked_fill(ghost_NQ, NO_COLOR),
    )


def classifier_loss(model: ResNetForImageClassification, batch_size: int, seed: int) -> LossAtStep:
    """Return the cross-entropy of kinds and colors over the quadrants of fresh images, as a function of the step."""

    def loss_at_step(step: int) -> Tensor:
        batch = sample_examples(batch_size, generator_for_step(seed, step))
        kind_NQK, color_NQC = quadrant_logits(model, batch.images_N3HW.to(model.device))
        kinds = F.cross_entropy(kind_NQK.flatten(0, 1), batch.kind_NQ.flatten().to(model.device))
        return kinds + F.cross_entropy(color_NQC.flatten(0, 1), batch.color_NQ.flatten().to(model.device))

    return loss_at_step


@torch.no_grad()
def held_out_accuracy(model: ResNetForImageClassification, count: int, seed: int) -> float:
    """Return the share in [0, 1] of quadrants of `count` fresh images with the right kind and color."""
    batch = sample_examples(count, generator_for_step(seed, 0))
    kind_NQ, color_NQ = (
        logits.argmax(-1).cpu() for logits in quadrant_logits(model, batch.images_N3HW.to(model.device))
    )
    return float(((kind_NQ == batch.kind_NQ) & (color_NQ == batch.color_NQ)).float().mean())


def _scenes(count: int, generator: torch.Generator) -> SceneBatch:
    """Sample scenes without a prompt: each object has a random kind, anywhere in its quadrant."""
    kind_NK = torch.randint(len(KINDS), (count, MAX_OBJECTS), generator=generator)
    present_NK = torch.rand(count, MAX_OBJECTS, generator=generator) < _PRESENT_SHARE
    constraints = SceneConstraints(kind_NK, torch.full_like(kind_NK, -1), present_NK, torch.full((count,), -1))
    scenes = couple(constraints, torch.randn(count, *NOISE_SHAPE, generator=generator))
    drift_NK2 = _MAX_DRIFT * (2 * torch.rand(scenes.center_NK2.shape, generator=generator) - 1)
    return replace(scenes, center_NK2=scenes.center_NK2 + drift_NK2)


def _scatter_to_quadrants(scenes: SceneBatch, value_NK: Tensor, fill_value: int) -> Tensor:
    """Return the value of the object in each quadrant, `fill_value` in empty ones: (N, Q)."""
    side_NK2 = (scenes.center_NK2 > IMAGE_SIZE / 2).long()
    quadrant_NK = side_NK2[..., 0] + 2 * side_NK2[..., 1]
    empty_NQ = torch.full((len(value_NK), QUADRANTS), fill_value)
    return empty_NQ.scatter(1, quadrant_NK, value_NK.masked_fill(~scenes.present_NK, fill_value))


def _uniform(count: int, bounds: tuple[float, float], generator: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(count, QUADRANTS, generator=generator)


def _upsample_quadrants(value_NQ: Tensor) -> Tensor:
    """Repeat each quadrant's value at all its pixels: (N, 1, 64, 64)."""
    return F.interpolate(value_NQ.view(-1, 1, 2, 2), size=(IMAGE_SIZE, IMAGE_SIZE))


def _degraded(images_N3HW: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, add noise and shift colors, each image by its own amount."""
    blurred = images_N3HW
    for _ in range(2):
        blurred = F.avg_pool2d(blurred, 3, 1, 1, count_include_pad=False)
    blur, noise = torch.rand(2, len(images_N3HW), 1, 1, 1, generator=generator)
    cast_N3 = _COLOR_CAST_STD * torch.randn(len(images_N3HW), 3, 1, 1, generator=generator)
    grain = _MAX_NOISE * noise * torch.randn(images_N3HW.shape, generator=generator)
    return (torch.lerp(images_N3HW, blurred, blur) + cast_N3 + grain).clamp(0, 1)
