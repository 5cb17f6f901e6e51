"""Classes of verifiers in training: the model, what it reads of a prompt, and the verifier that it becomes.

Shapes: N rows, T image tokens of width D, L text tokens.
"""

from abc import ABC, abstractmethod
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Generator
from forejudge.training.config import VerifyRecipe
from forejudge.training.dataset import PromptEncoder, QuestionTokens, TextStates
from forejudge.training.model import (
    Verification,
    add_head,
    load_aligned_verifier,
    new_trainable_verifier,
    shared_grid,
)
from forejudge.verifiers.base import PretrainedVerifier
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.cross_attention import (
    CrossAttentionModel,
    CrossAttentionVerifier,
    CrossAttentionVerifierConfig,
)
from forejudge.verifiers.inputs import VerifierInput
from forejudge.verifiers.language_model import LanguageModelVerifier, LanguageModelVerifierConfig
from forejudge.verifiers.question import Question

TrainedVerifier = LanguageModelVerifier | CrossAttentionVerifier


class StageModel(ABC):
    """A verifier of one class in training. `encode` makes what it reads of prompts."""

    encode: PromptEncoder

    @property
    @abstractmethod
    def connector(self) -> Connector:
        """The part that standardizes states."""

    @abstractmethod
    def module(self) -> nn.Module:
        """Return the module to train; its output "logprobs" holds those of yes and no (N, 2), or a value (N, 1)."""

    @abstractmethod
    def verifier(self, name: str) -> TrainedVerifier:
        """Return the verifier around the same weights, not calibrated yet."""


class LanguageModelStage(StageModel):
    """Connector and language model, in full or through adapters."""

    def __init__(
        self, recipe: VerifyRecipe, generator: Generator, verifier_input: VerifierInput, aligned: Path | None
    ) -> None:
        self._recipe, self._generator, self._verifier_input = recipe, generator, verifier_input
        if aligned:
            self._trainable = load_aligned_verifier(aligned, recipe, generator)
        else:
            self._trainable = new_trainable_verifier(recipe, verifier_input, generator)
        self._question = Question(recipe.question, self._trainable.tokenizer)
        self.encode = QuestionTokens(self._question)

    @property
    def connector(self) -> Connector:
        """See `StageModel.connector`."""
        return self._trainable.model.connector

    def module(self) -> nn.Module:
        """See `StageModel.module`."""
        recipe, trainable = self._recipe, self._trainable
        if recipe.loss.kind == "regression":
            trainable = add_head(trainable, recipe.seed)
        if recipe.lora is not None:
            trainable = trainable.with_lora(recipe.lora)
        model = trainable.to_training(recipe, self._generator.device).model
        return Verification(model, self._question.answer_token_ids())

    def verifier(self, name: str) -> LanguageModelVerifier:
        """See `StageModel.verifier`. Adapters are merged."""
        recipe, trainable = self._recipe, self._trainable.merge_adapters()
        config = LanguageModelVerifierConfig.from_generator(
            self._generator,
            recipe.reads,
            question=recipe.question,
            spatial_merge_size=recipe.spatial_merge_size,
            has_head=trainable.model.head is not None,
        )
        return LanguageModelVerifier(name, config, trainable.model, trainable.tokenizer, self._verifier_input)


class CrossAttentionStage(StageModel):
    """Connector and layers of cross-attention."""

    def __init__(self, recipe: VerifyRecipe, generator: Generator, verifier_input: VerifierInput) -> None:
        assert recipe.cross_attention is not None
        self._verifier_input, self._device = verifier_input, generator.device
        self._config = CrossAttentionVerifierConfig.from_generator(
            generator, recipe.reads, size=recipe.cross_attention, spatial_merge_size=recipe.spatial_merge_size
        )
        torch.manual_seed(recipe.seed)
        self._model = self._config.new_model(verifier_input)
        self.encode = TextStates(generator)

    @property
    def connector(self) -> Connector:
        """See `StageModel.connector`."""
        return self._model.connector

    def module(self) -> nn.Module:
        """See `StageModel.module`."""
        return CrossAttentionVerification(self._model.to(self._device))

    def verifier(self, name: str) -> CrossAttentionVerifier:
        """See `StageModel.verifier`."""
        return CrossAttentionVerifier(name, self._config, self._model, self._verifier_input)


class CrossAttentionVerification(nn.Module):
    """Stage 2 of a cross-attention verifier."""

    def __init__(self, model: CrossAttentionModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, tokens_NTD: Tensor, text_NLD: Tensor, mask_NL: Tensor, grid_N2: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return log-probabilities of yes and no (N, 2)."""
        log_odds_N = self.model(tokens_NTD.float(), text_NLD.float(), mask_NL, shared_grid(grid_N2))
        return {"logprobs": F.logsigmoid(torch.stack([log_odds_N, -log_odds_N], dim=1))}


def new_stage_model(
    recipe: VerifyRecipe, generator: Generator, verifier_input: VerifierInput, aligned: Path | None
) -> StageModel:
    """Build the model that a recipe trains, on an aligned connector if there is one, without statistics if not.

    Raises InvalidRequest for an aligned connector that the verifier's class has no use for.
    """
    if recipe.cross_attention is None:
        return LanguageModelStage(recipe, generator, verifier_input, aligned)
    if aligned is not None:
        raise InvalidRequest(f"{aligned}: a cross_attention verifier has no language model to align with, leave it out")
    return CrossAttentionStage(recipe, generator, verifier_input)


def trained_stage(verifier: PretrainedVerifier, generator: Generator) -> tuple[nn.Module, PromptEncoder]:
    """Return the module that a trained verifier came from, and what it reads of prompts."""
    if isinstance(verifier, CrossAttentionVerifier):
        return CrossAttentionVerification(verifier.model), TextStates(generator)
    assert isinstance(verifier, LanguageModelVerifier), f"{verifier.name} is of a class that is not trained"
    return Verification(verifier.model, verifier.question.answer_token_ids()), QuestionTokens(verifier.question)
