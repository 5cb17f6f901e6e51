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
from forejudge.miniature.scenes import NOISE_SHAPE, SceneConstraints, couple, render
from research.miniature.autoencoder import to_model_range
from research.miniature.train import LossAtStep, generator_for_step

_TEXT_TOKENS = 16  # the longest prompt of the world has 13 tokens; masked ones change nothing
_CONSISTENCY_WEIGHT = 0.25  # weight of the distance between what the first blocks and all of them predict
_HUBER_DELTA = 0.3  # below this error per token the loss is a square, above it a distance


@dataclass(frozen=True)
class TrainingExample:
    """What N pictures are learnt from: latents to be given at a time (N,), and what is to be predicted of them."""

    latents_NCHW: Tensor
    time_N: Tensor
    target_NCHW: Tensor


class OneStepParts(nn.Module, ABC):
    """What is trained together: text encoder and transformer, whose output is read after `early_exit_blocks` blocks too."""

    split: ClassVar[SplitTransformer[Any, Any, Any]]
    output_layers: ClassVar[
        tuple[str, ...]
    ]  # parts of names: through these layers alone a block changes the hidden state
    text_encoder: Any
    transformer: Any
    early_exit_blocks: int

    @abstractmethod
    def forward(self, ids_NL: Tensor, mask_NL: Tensor, latents_NCHW: Tensor, time_N: Tensor) -> tuple[Tensor, Tensor]:
        """What is predicted (N, C, H, W) after all blocks, and what the first `early_exit_blocks` alone predict."""

    @abstractmethod
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of its text encoder."""

    @abstractmethod
    def training_example(
        self, pred_original_sample_NCHW: Tensor, noise_NCHW: Tensor, generator: torch.Generator
    ) -> TrainingExample:
        """What is learnt from clean latents and the noise that they are coupled with."""

    @abstractmethod
    def with_depth(self, blocks: int) -> Self:
        """Untrained parts that differ in nothing else."""

    def transformer_outputs(self, inputs: Any) -> tuple[Tensor, Tensor]:
        """The transformer's output (N, C, H, W) after all blocks, and after the first `early_exit_blocks` alone."""
        blocks = len(self.transformer.transformer_blocks)
        hidden = self.split.prefix(self.transformer, inputs, self.early_exit_blocks)
        early_NCHW = self.split.suffix(self.transformer, hidden, blocks)
        if self.early_exit_blocks == blocks:
            return early_NCHW, early_NCHW
        return self.split.suffix(self.transformer, hidden, self.early_exit_blocks), early_NCHW

    def deepen(self, blocks: int) -> Self:
        """A copy of so many blocks, the new ones last: they begin as the last one without its outputs, no change."""
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
    """Regression of what is to be predicted, by all blocks and by the first ones, on freshly rendered scenes."""

    def __init__(self, parts: OneStepParts, autoencoder: AutoencoderDC, compiled: bool) -> None:
        self.parts = parts
        if compiled:
            for block in parts.transformer.transformer_blocks:
                block.compile()  # alike, so that one compilation serves all
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.tokenizer = parts.tokenizer()

    def per_step(self, batch_size: int, seed: int) -> LossAtStep:
        """The loss as a function of the training step."""
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
        training_example = self.parts.training_example(clean, noise, generator)
        text = self.tokenizer(
            [item.prompt for item in sampled],
            padding="max_length",
            padding_side="right",
            max_length=_TEXT_TOKENS,
            return_tensors="pt",
        )
        parts = (
            text.input_ids,
            text.attention_mask,
            training_example.latents_NCHW,
            training_example.time_N,
            training_example.target_NCHW,
        )
        return _Batch(*(part.to(self.autoencoder.device) for part in parts))

    @torch.no_grad()
    def _encode(self, image: Tensor) -> Tensor:
        image = to_model_range(image).to(self.autoencoder.device)
        latents = self.autoencoder.encode(image).latent.cpu()
        return latents * self.autoencoder.config.scaling_factor


def _pseudo_huber(difference_NCHW: Tensor) -> Tensor:
    """Pseudo-Huber distance per token: undecided tokens settle for one picture rather than a blend of two."""
    squared_NHW = difference_NCHW.square().mean(1)
    return ((squared_NHW + _HUBER_DELTA**2).sqrt() - _HUBER_DELTA).mean()
