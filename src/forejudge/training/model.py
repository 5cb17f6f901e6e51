"""The model that a stage trains: a language model with a new or an aligned connector, as a module for the trainer.

Shapes: N rows, T image tokens of width D, L text tokens, S tokens in all of width E, V words.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from forejudge.checkpoint import checkpoint_errors, ignore_transformers_deprecations
from forejudge.config_files import read_config
from forejudge.device import dtype_name, resolve_precision
from forejudge.digests import check_checksums
from forejudge.errors import CheckpointError, InvalidRequest, MismatchError, MissingExtra
from forejudge.generators import find_spec
from forejudge.generators.base import Generator
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model, load_tokenizer
from forejudge.training.config import (
    INPUTS_FILE,
    RECIPE_FILE,
    LoraOptions,
    RecipeModels,
    RunInputs,
    TrainingRecipe,
    with_public_names,
)
from forejudge.types import Grid
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.inputs import VerifierInput
from forejudge.verifiers.language_model import CONNECTOR_FILE, LanguageModelVerifier, YesNoModel


class _StageModule(nn.Module):
    """Base of both stages: stores a tensor once if output layer and input embedding share it."""

    def __init__(self, model: YesNoModel) -> None:
        super().__init__()
        self.model = model
        self.register_state_dict_post_hook(_drop_tied_names)
        self.register_load_state_dict_pre_hook(_restore_tied_names)


class Alignment(_StageModule):
    """Stage 1: train the connector, freeze the language model."""

    def __init__(self, model: YesNoModel) -> None:
        super().__init__(model)
        model.language_model.requires_grad_(False)

    def forward(
        self, tokens_NTD: Tensor, left_NL: Tensor, right_NL: Tensor, grid_N2: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the logits (N, L, V) that predict each token of `right_NL`."""
        embedded_NSE = self.model.embed(tokens_NTD.float(), left_NL, right_NL, shared_grid(grid_N2))
        length = right_NL.shape[1]
        logits_NLV = self.model.language_model(inputs_embeds=embedded_NSE, logits_to_keep=length + 1).logits
        return {"logits_NLV": logits_NLV[:, :-1]}


class Verification(_StageModule):
    """Stage 2: answer yes or no. `answer_ids` are the token ids of yes and no."""

    def __init__(self, model: YesNoModel, answer_ids: tuple[int, int]) -> None:
        super().__init__(model)
        self.answer_ids = list(answer_ids)

    def forward(
        self,
        tokens_NTD: Tensor,
        left_NL: Tensor,
        right_NL: Tensor,
        mask_NL: Tensor,
        grid_N2: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return log-probabilities of yes and no over the whole vocabulary (N, 2), or a head's value (N, 1)."""
        logprobs = self.model(tokens_NTD.float(), left_NL, right_NL, mask_NL, shared_grid(grid_N2))
        return {"logprobs": logprobs if self.model.head is not None else logprobs[:, self.answer_ids]}


def shared_grid(grid_N2: Tensor | None) -> Grid | None:
    """Return the grid that all rows of a batch share."""
    if grid_N2 is None:
        return None
    rows, columns = grid_N2[0].tolist()
    return rows, columns


def log_odds(logprobs: Tensor) -> Tensor:
    """Return log-odds of yes, or the head's value, from the output of `Verification`: (N,)."""
    return logprobs[:, 0] if logprobs.shape[1] == 1 else logprobs[:, 0] - logprobs[:, 1]


def _tied_names(module: nn.Module) -> dict[str, str]:
    """Map further names of shared tensors to their first name."""
    first: dict[int, str] = {}
    all_parameters = module.named_parameters(remove_duplicate=False)
    return {
        name: first_name
        for name, tensor in all_parameters
        if (first_name := first.setdefault(id(tensor), name)) != name
    }


def _drop_tied_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Drop further names: safetensors refuses two names for one tensor."""
    for name in _tied_names(module):
        state.pop(prefix + name, None)


def _restore_tied_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, first_name in _tied_names(module).items():
        if prefix + first_name in state:
            state.setdefault(prefix + name, state[prefix + first_name])


@dataclass(frozen=True)
class TrainableVerifier:
    """A model in training, with its tokenizer."""

    model: YesNoModel
    tokenizer: PreTrainedTokenizerBase

    def with_lora(self, options: LoraOptions) -> "TrainableVerifier":
        """Add adapters to the language model and freeze the rest of it. Raises MissingExtra without peft."""
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError:
            raise MissingExtra("peft", "lora") from None
        config = LoraConfig(
            r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules="all-linear"
        )
        with ignore_transformers_deprecations():
            self.model.language_model = get_peft_model(self.model.language_model, config)
        return self

    def to_training(self, recipe: TrainingRecipe, device: torch.device) -> "TrainableVerifier":
        """Move the model to the training device and apply the recipe's memory and attention options."""
        language_model = self.model.to(device).language_model
        if recipe.gradient_checkpointing:
            with ignore_transformers_deprecations():
                language_model.gradient_checkpointing_enable({"use_reentrant": False})
        if device.type == "cpu" and resolve_precision(recipe.precision, device) == torch.bfloat16:
            language_model.set_attn_implementation("eager")  # a third faster: PyTorch's fused backward is slow there
        return self

    def merge_adapters(self) -> "TrainableVerifier":
        """Merge adapters, if there are any, into the weights they adapt."""
        merge = getattr(self.model.language_model, "merge_and_unload", None)
        if merge is not None:
            self.model.language_model = merge()
        return self


def language_model_source(recipe: TrainingRecipe) -> str:
    """Return a folder or hub id; a recipe may instead name the generator whose default language model it takes."""
    spec = find_spec(recipe.language_model)
    return spec.language_model if spec and spec.language_model else recipe.language_model


def new_trainable_verifier(
    recipe: TrainingRecipe, verifier_input: VerifierInput, generator: Generator
) -> TrainableVerifier:
    """Load the recipe's language model and put a new connector, still without statistics, in front of it.

    Raises CheckpointError for a language model that cannot be loaded.
    """
    folder = local_folder(language_model_source(recipe))
    language_model: Any = load_library_model(AutoModelForCausalLM, folder, torch.float32)
    if not all(weight.isfinite().all() for weight in language_model.parameters()):
        raise CheckpointError(f"{folder} holds weights that are not finite: get the language model again")
    tokenizer = load_tokenizer(AutoTokenizer, folder)
    check_checksums(folder)
    torch.manual_seed(recipe.seed)
    width = verifier_input.width(generator.architecture)
    connector = Connector(width, language_model.config.hidden_size, recipe.spatial_merge_size)
    return TrainableVerifier(YesNoModel(connector, language_model), tokenizer)


def load_aligned_verifier(folder: Path, recipe: TrainingRecipe, generator: Generator) -> TrainableVerifier:
    """Load the result of stage 1. Raises MismatchError if it has another input, generator or language model."""
    aligned = LanguageModelVerifier.from_pretrained(folder)
    for warning in aligned.check(generator):
        raise MismatchError(f"{warning}: align again")
    for field in ("reads", "spatial_merge_size"):
        stored, expected = getattr(aligned.config, field), getattr(recipe, field)
        if stored != expected:
            raise MismatchError(f"{folder} has {field} = {stored}, the recipe has {expected}: make them the same")
    aligned_models = read_config(folder / RECIPE_FILE, RecipeModels)
    for field in RecipeModels.model_fields:
        stored, expected = getattr(aligned_models, field), getattr(with_public_names(recipe), field)
        if stored != expected:
            raise MismatchError(f"{folder} was made with {field} = {stored}, the recipe has {expected}")
    return TrainableVerifier(aligned.model, aligned.tokenizer)


def aligned_digest(aligned: Path | None) -> str | None:
    """Return 16 hexadecimal digits of the SHA-256 of an aligned connector's weights.

    Raises CheckpointError for a folder that stage 1 did not write.
    """
    if aligned is None:
        return None
    if (stage := read_config(aligned / INPUTS_FILE, RunInputs).stage) != "align":
        raise MismatchError(f"{aligned} is the result of stage {stage}: expected a folder of `forejudge train align`")
    with checkpoint_errors(aligned / CONNECTOR_FILE):
        return hashlib.sha256((aligned / CONNECTOR_FILE).read_bytes()).hexdigest()[:16]


def check_finite(module: nn.Module, dtype: torch.dtype) -> None:
    """Raise InvalidRequest naming a weight that is not finite once it is stored in `dtype`."""
    for name, weight in module.named_parameters():
        if not weight.detach().to(dtype).isfinite().all():
            raise InvalidRequest(
                f"training diverged, {name} is not finite in {dtype_name(dtype)}: lower learning_rate or change "
                "precision or save_dtype, with another --out; earlier checkpoints are kept"
            )


def add_head(trainable: TrainableVerifier, seed: int) -> TrainableVerifier:
    """Replace the yes/no answer by a new head, and freeze an untied output layer."""
    model = trainable.model
    torch.manual_seed(seed)
    model.head = nn.Linear(model.language_model.config.hidden_size, 1)
    output, embedding = model.language_model.get_output_embeddings(), model.language_model.get_input_embeddings()
    if output.weight is not embedding.weight:
        output.requires_grad_(False)
    return trainable


def set_statistics(connector: Connector, statistics: tuple[Tensor, Tensor]) -> None:
    """Set mean and variance that a connector standardizes by. Raises CheckpointError if they are not finite."""
    if not all(statistic.isfinite().all() for statistic in statistics):
        raise CheckpointError("the states of the training candidates are not finite: generate them again in bfloat16")
    connector.set_statistics(*statistics)
