"""One-step training shared by the miniature's generators.

At the first time (pure noise) the scene is coupled with the noise, and regression learns that function. A shallow
transformer is trained first and then made twice as deep; the new blocks start as the identity. From then on the output
layer is also applied after the first half and must predict the same, so that the first half decides on the image.
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
from forejudge.miniature.scenes import NOISE_SHAPE, SceneConstraints, couple, render
from research.miniature.autoencoder import to_model_range
from research.miniature.train import LossAtStep, generator_for_step

_TEXT_TOKENS = 16  # the longest prompt of the world has 13 tokens; masked ones change nothing
_CONSISTENCY_WEIGHT = 0.25  # weight of the distance between early and final prediction
_HUBER_DELTA = 0.3  # below this error per token the loss is quadratic, above it linear


@dataclass(frozen=True)
class TrainingExample:
    """Training targets of N images: latents at a time (N,), and the tensor to be predicted from them."""

    latents_NCHW: Tensor
    time_N: Tensor
    target_NCHW: Tensor


class OneStepParts(nn.Module, ABC):
    """Text encoder and transformer, trained together, with an early exit after `early_exit_blocks` blocks."""

    split: ClassVar[SplitTransformer[Any, Any, Any]]
    # Parts of the names of the only layers through which a block changes the hidden state.
    output_layers: ClassVar[tuple[str, ...]]
    text_encoder: Any
    transformer: Any
    early_exit_blocks: int

    @abstractmethod
    def forward(self, ids_NL: Tensor, mask_NL: Tensor, latents_NCHW: Tensor, time_N: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prediction (N, C, H, W) after all blocks, and that after the first `early_exit_blocks` alone."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer of the text encoder."""

    @abstractmethod
    def training_example(self, clean_NCHW: Tensor, noise_NCHW: Tensor, generator: torch.Generator) -> TrainingExample:
        """Build the training targets of clean latents and the noise that they are coupled with."""

    @abstractmethod
    def with_depth(self, blocks: int) -> Self:
        """Return untrained parts that differ in depth alone."""

    def transformer_outputs(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """Return the transformer's output (N, C, H, W) after all blocks, and at the early exit."""
        blocks = len(self.transformer.transformer_blocks)
        hidden = self.split.prefix(self.transformer, inputs, self.early_exit_blocks)
        early_NCHW = self.split.suffix(self.transformer, hidden, blocks)
        if self.early_exit_blocks == blocks:
            return early_NCHW, early_NCHW
        return self.split.suffix(self.transformer, hidden, self.early_exit_blocks), early_NCHW

    def deepen(self, blocks: int) -> Self:
        """Return a copy with `blocks` blocks; the new ones copy the last one with zero output layers: the identity."""
        deeper = self.with_depth(blocks)
        deeper.text_encoder.load_state_dict(self.text_encoder.state_dict())
        first = len(self.transformer.transformer_blocks)
        weights = self.transformer.state_dict()
        last = {name: value for name, value in weights.items() if name.startswith(f"transformer_blocks.{first - 1}.")}
        for number, (name, value) in product(range(first, blocks), last.items()):
            is_output = any(part in name for part in self.output_layers)
            renamed = name.replace(f".{first - 1}.", f".{number}.", 1)
            weights[renamed] = torch.zeros_like(value) if is_output else value.clone()
        deeper.transformer.load_state_dict(weights)
        return deeper


@dataclass(frozen=True)
class _Batch:
    ids_NL: Tensor
    mask_NL: Tensor
    latents_NCHW: Tensor
    time_N: Tensor
    target_NCHW: Tensor


class GeneratorLoss:
    """Regression loss of the final and the early prediction on freshly rendered scenes."""

    def __init__(self, parts: OneStepParts, autoencoder: AutoencoderDC, compiled: bool) -> None:
        self.parts = parts
        if compiled:
            for block in parts.transformer.transformer_blocks:
                block.compile()  # blocks are alike: one compilation serves all
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.tokenizer = parts.tokenizer()

    def per_step(self, batch_size: int, seed: int) -> LossAtStep:
        """Return the loss as a function of the training step."""
        return lambda step: self._loss(self._batch(batch_size, generator_for_step(seed, step)))

    def _loss(self, batch: _Batch) -> Tensor:
        predicted, early = self.parts(batch.ids_NL, batch.mask_NL, batch.latents_NCHW, batch.time_N)
        target = batch.target_NCHW
        if early is predicted:
            return _pseudo_huber(predicted - target)
        return (
            _pseudo_huber(predicted - target)
            + _pseudo_huber(early - target)
            + _CONSISTENCY_WEIGHT * _pseudo_huber(predicted - early)
        )

    def _batch(self, size: int, generator: torch.Generator) -> _Batch:
        sampled = sample_descriptions(size, generator)
        noise = torch.randn(size, *NOISE_SHAPE, generator=generator)
        clean = self._encode(render(couple(SceneConstraints.from_descriptions(sampled), noise)))
        example = self.parts.training_example(clean, noise, generator)
        text = self.tokenizer(
            [item.prompt for item in sampled],
            padding="max_length",
            padding_side="right",
            max_length=_TEXT_TOKENS,
            return_tensors="pt",
        )
        tensors = (text.input_ids, text.attention_mask, example.latents_NCHW, example.time_N, example.target_NCHW)
        return _Batch(*(tensor.to(self.autoencoder.device) for tensor in tensors))

    @torch.no_grad()
    def _encode(self, image: Tensor) -> Tensor:
        image = to_model_range(image).to(self.autoencoder.device)
        latents = self.autoencoder.encode(image).latent.cpu()
        return latents * self.autoencoder.config.scaling_factor


def _pseudo_huber(difference_NCHW: Tensor) -> Tensor:
    """Compute the pseudo-Huber distance per token: undecided tokens settle for one image rather than a blend of two."""
    squared_NHW = difference_NCHW.square().mean(1)
    return ((squared_NHW + _HUBER_DELTA**2).sqrt() - _HUBER_DELTA).mean()
