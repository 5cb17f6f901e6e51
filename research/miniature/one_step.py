"""What the miniature's generators have in common: parts that are trained together, and how.

At the first time (pure noise) the scene is coupled with the noise, and regression learns that function. A shallow
transformer is trained first and then made twice as deep: the new blocks start as no change. From then on the output
layer is read after the first half too and has to say the same, so that the first half decides what will be drawn.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar, Self

import torch
from diffusers import AutoencoderDC
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from forejudge.generators.split import SplitTransformer
from forejudge.miniature.prompts import sample_descriptions
from forejudge.miniature.scenes import NOISE_SHAPE, Asked, couple, render
from research.miniature.autoencoder import to_model_range
from research.miniature.train import LossAtStep, generator_at

_TEXT_LENGTH = 16  # the longest prompt of the world has 13 tokens; masked ones change nothing
_AGREEMENT = 0.25  # weight of the distance between what the first blocks and all of them predict
_SOFTNESS = 0.3  # below this error per token the loss is a square, above it a distance


@dataclass(frozen=True)
class Exercise:
    """What N pictures are learnt from: latents to be given at a time (N,), and what is to be predicted of them."""

    noisy_NCHW: Tensor
    time_N: Tensor
    wanted_NCHW: Tensor


class OneStepParts(nn.Module, ABC):
    """What is trained together: text encoder and transformer, whose output is read after `decided_after` blocks too."""

    split: ClassVar[SplitTransformer[Any, Any, Any]]
    outputs: ClassVar[tuple[str, ...]]  # parts of names: through these layers alone a block changes the hidden state
    text_encoder: Any
    transformer: Any
    decided_after: int

    @abstractmethod
    def forward(self, ids_NL: Tensor, mask_NL: Tensor, latents_NCHW: Tensor, time_N: Tensor) -> tuple[Tensor, Tensor]:
        """What is predicted (N, C, H, W) after all blocks, and what the first `decided_after` alone predict."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of its text encoder."""

    @abstractmethod
    def exercise(self, clean_NCHW: Tensor, noise_NCHW: Tensor, generator: torch.Generator) -> Exercise:
        """What is learnt from clean latents and the noise that they are coupled with."""

    @abstractmethod
    def of_depth(self, blocks: int) -> Self:
        """Untrained parts that differ in nothing else."""

    def outputs_of(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """The transformer's output (N, C, H, W) after all blocks, and after the first `decided_after` alone."""
        blocks = len(self.transformer.transformer_blocks)
        middle = self.split.prefix(self.transformer, inputs, self.decided_after)
        decided_NCHW = self.split.suffix(self.transformer, middle, blocks)
        if self.decided_after == blocks:
            return decided_NCHW, decided_NCHW
        return self.split.suffix(self.transformer, middle, self.decided_after), decided_NCHW

    def deepened(self, blocks: int) -> Self:
        """A copy of so many blocks, the new ones last: they begin as the last one without its outputs, no change."""
        deeper = self.of_depth(blocks)
        deeper.text_encoder.load_state_dict(self.text_encoder.state_dict())
        first = len(self.transformer.transformer_blocks)
        weights = self.transformer.state_dict()
        last = {name: value for name, value in weights.items() if name.startswith(f"transformer_blocks.{first - 1}.")}
        for number, (name, value) in product(range(first, blocks), last.items()):
            is_output = any(part in name for part in self.outputs)
            renamed = name.replace(f".{first - 1}.", f".{number}.", 1)
            weights[renamed] = torch.zeros_like(value) if is_output else value.clone()
        deeper.transformer.load_state_dict(weights)
        return deeper


@dataclass(frozen=True)
class _Batch:
    ids_NL: Tensor
    mask_NL: Tensor
    noisy_NCHW: Tensor
    time_N: Tensor
    wanted_NCHW: Tensor


class GeneratorLoss:
    """Regression of what is to be predicted, by all blocks and by the first ones, on freshly rendered scenes."""

    def __init__(self, parts: OneStepParts, autoencoder: AutoencoderDC, compiled: bool) -> None:
        self.parts = parts
        if compiled:
            for block in parts.transformer.transformer_blocks:
                block.compile()  # alike, so that one compilation serves all
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.tokenizer = parts.tokenizer()

    def at(self, batch_size: int, seed: int) -> LossAtStep:
        """The loss as a function of the training step."""
        return lambda step: self._loss(self._batch(batch_size, generator_at(seed, step)))

    def _loss(self, batch: _Batch) -> Tensor:
        predicted, decided = self.parts(batch.ids_NL, batch.mask_NL, batch.noisy_NCHW, batch.time_N)
        wanted = batch.wanted_NCHW
        if decided is predicted:
            return _error(predicted - wanted)
        return _error(predicted - wanted) + _error(decided - wanted) + _AGREEMENT * _error(predicted - decided)

    def _batch(self, size: int, generator: torch.Generator) -> _Batch:
        described = sample_descriptions(size, generator)
        noise = torch.randn(size, *NOISE_SHAPE, generator=generator)
        clean = self._encode(render(couple(Asked.of(described), noise)))
        exercise = self.parts.exercise(clean, noise, generator)
        text = self.tokenizer(
            [item.prompt for item in described],
            padding="max_length",
            padding_side="right",
            max_length=_TEXT_LENGTH,
            return_tensors="pt",
        )
        parts = (text.input_ids, text.attention_mask, exercise.noisy_NCHW, exercise.time_N, exercise.wanted_NCHW)
        return _Batch(*(part.to(self.autoencoder.device) for part in parts))

    @torch.no_grad()
    def _encode(self, picture: Tensor) -> Tensor:
        picture = to_model_range(picture).to(self.autoencoder.device)
        latents = self.autoencoder.encode(picture).latent.cpu()
        return latents * self.autoencoder.config.scaling_factor


def _error(difference_NCHW: Tensor) -> Tensor:
    """Pseudo-Huber distance per token: undecided tokens settle for one picture rather than a blend of two."""
    squared_NHW = difference_NCHW.square().mean(1)
    return ((squared_NHW + _SOFTNESS**2).sqrt() - _SOFTNESS).mean()
