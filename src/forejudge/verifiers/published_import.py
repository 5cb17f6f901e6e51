"""Import of verifiers from the published layout (LLaVA around Qwen2), and the ranking score of the released code.

The import reproduces each step of the released loader that changes probabilities, such as resizing the vocabulary. It
ignores generation settings: they only affect sampling, and a verifier does not sample.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen2ForCausalLM

from forejudge.checkpoint import assign_weights, ignore_transformers_deprecations, load_tensors
from forejudge.config_files import read_config
from forejudge.errors import CheckpointError, InvalidRequest, MismatchError
from forejudge.files import exists, is_dir
from forejudge.generators import known_models, load_architecture
from forejudge.generators.base import Architecture
from forejudge.hub import Source
from forejudge.library_models import library_model_from_tensors, load_tokenizer
from forejudge.types import Candidates
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.inputs import InputWeights, VerifierInput, build_verifier_input
from forejudge.verifiers.language_model import LanguageModelVerifier, LanguageModelVerifierConfig, YesNoModel
from forejudge.verifiers.published_format import (
    PUBLISHED_CONFIG_FILE,
    PublishedConfig,
    Statistics,
    find_statistics,
    read_statistics,
)

CONNECTOR_PREFIX = "model.mm_projector."
INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS = "model.embed_tokens.weight", "lm_head.weight"
_TOWER_PREFIX = "model.vision_tower."
_UNKNOWN_TOKEN = "[UNK]"
_VOCAB_MULTIPLE = 64
_UNRESIZED_MODELS = ("qwen", "gemma")


@dataclass(frozen=True)
class ImportedVerifier:
    """Imported verifier, with notes for the user on the files read and the assumptions made."""

    verifier: LanguageModelVerifier
    notes: tuple[str, ...]


def import_published(
    source: "PublishedSource",
    name: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> ImportedVerifier:
    """Load a published verifier; without `dtype` each tensor keeps its own. Raises the errors of `PublishedSource`."""
    notes, tokenizer, tensors = source.notes(), source.tokenizer(), load_tensors(source.folder)
    vocab_size = source.config.vocab_size
    if tokenizer.unk_token is None and not keeps_vocabulary(source.origin.model):
        vocab_size, tensors = add_unknown_token(tokenizer, tensors)
        notes.append(
            f"the tokenizer has no unknown token: as the released loader does, {_UNKNOWN_TOKEN} is added and the "
            f"vocabulary goes from {source.config.vocab_size} to {vocab_size} rows, the last one the mean of the others"
        )
    if any(name.startswith(_TOWER_PREFIX) for name in tensors):
        notes.append(f"vision tower weights inside the checkpoint are ignored: the tower is {source.tower}")
    config = _verifier_config(source)
    language_model = _language_model(source, tensors, vocab_size, dtype)
    connector = _connector(source, config, tensors, language_model.config.hidden_size)
    model = YesNoModel(connector if dtype is None else connector.to(dtype), language_model).to(device)
    source.verifier_input.to(torch.device(device), dtype or torch.float32)
    verifier = LanguageModelVerifier(name or str(source.origin), config, model, tokenizer, source.verifier_input)
    verifier.folder, verifier.source = source.folder, source.origin
    return ImportedVerifier(verifier, tuple(notes))


@dataclass(frozen=True)
class PublishedSource:
    """Folder of a published verifier, and the settings that the folder does not record.

    `statistics_files` are the paths of mean and variance, on disk or in the folder (default: the pair in the folder).
    `generator` is any name that `load_generator` takes (default: the only known generator that has the width and
    block, else unknown). `vision_tower` is a folder or hub id (default: the one in the config).

    Properties raise CheckpointError for files that are missing, truncated or foreign; for missing statistics the
    message gives the command that names them.
    """

    origin: Source
    statistics_files: tuple[Path, Path] | None = None
    generator: str | None = None
    vision_tower: str | None = None

    @property
    def folder(self) -> Path:
        """Folder with the verifier's files."""
        return self.origin.folder

    @cached_property
    def config(self) -> PublishedConfig:
        """Content of config.json."""
        return read_config(self.folder / PUBLISHED_CONFIG_FILE, PublishedConfig)

    @cached_property
    def architecture(self) -> Architecture | None:
        """Architecture of the generator, None if unknown. Raises MismatchError for a generator of another width."""
        name, width = self.generator or self._default_generator, self.config.mm_hidden_size
        if name is None:
            return None
        architecture = load_architecture(name)
        if self.config.block is not None and width != architecture.width:
            raise MismatchError(
                f"{self.origin.model} reads states of width {width}, but {name} has width {architecture.width}: name "
                "the generator that it was trained for"
            )
        return architecture

    @property
    def _default_generator(self) -> str | None:
        names = self._generators_that_fit
        return names[0] if len(names) == 1 else None

    @property
    def _generators_that_fit(self) -> list[str]:
        """Names of known generators that have the width and the block; empty for a verifier of images."""
        block, width = self.config.block, self.config.mm_hidden_size
        known = {name: spec.architecture for name, spec in known_models().items() if spec.architecture is not None}
        if block is None:
            return []
        return [name for name, shape in known.items() if shape.width == width and shape.num_blocks > block]

    @cached_property
    def verifier_input(self) -> VerifierInput:
        """Verifier input, with the vision tower if any. Raises MismatchError if the generator has too few blocks."""
        verifier_input = build_verifier_input(self.config.reads, InputWeights(vision_tower=self.tower))
        if self.architecture is not None:
            verifier_input.width(self.architecture)
        return verifier_input

    @property
    def tower(self) -> str:
        """Folder or hub id of the vision tower."""
        return self.vision_tower or self.config.mm_vision_tower

    @cached_property
    def statistics(self) -> Statistics | None:
        """Mean and variance; None if the input is not standardized. Raises InvalidRequest for unused files."""
        if self._statistics_paths is None:
            return None
        num_tokens = None if self.architecture is None else self.architecture.num_tokens
        return read_statistics(self._statistics_paths, self.config.mm_hidden_size, num_tokens)

    @cached_property
    def _statistics_paths(self) -> tuple[Path, Path] | None:
        block, named = self.config.block, self.statistics_files
        if block is None or not self.config.mm_vision_normalize:
            if named is not None:
                raise InvalidRequest(f"{self.origin.model} does not standardize its input: leave --statistics out")
            return None
        if named is not None:
            mean, variance = (path if exists(path) else self.folder / path for path in named)
            return mean, variance
        try:
            return find_statistics(self.folder, block)
        except CheckpointError as error:
            command = f"forejudge verifier import {self.origin.model} FOLDER --statistics MEAN VARIANCE"
            raise CheckpointError(f"{error}: name them once with {command}") from None

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Load the tokenizer. Raises CheckpointError without a chat template, which the question needs."""
        with ignore_transformers_deprecations():  # from the config beside it
            tokenizer: PreTrainedTokenizerBase = load_tokenizer(AutoTokenizer, self.folder)
        if not tokenizer.chat_template:
            raise CheckpointError(f"{self.folder} holds a tokenizer without a chat template: the question needs one")
        return tokenizer

    def notes(self) -> list[str]:
        """Describe the files read and the assumptions made, one sentence each."""
        reads = self.verifier_input.name
        from_ = f"the vision tower {self.tower}" if self.config.block is None else self.config.mm_vision_select_feature
        files = " and ".join(path.name for path in self._statistics_paths or ())
        return [
            f"reads {reads}, from {from_}",
            f"generator: {self._generator_note()}; on which weights of it the verifier was trained is unknown",
            f"standardizes by {self.statistics}: {files}" if self.statistics else "standardizes nothing",
        ]

    def _generator_note(self) -> str:
        if self.generator is not None:
            return self.generator
        width, names = self.config.mm_hidden_size, self._generators_that_fit
        if len(names) == 1:
            return f"{names[0]}, assumed as the one known generator of width {width}"
        choice = f"; of that width are {', '.join(names)}" if names else ""
        return f"unknown beyond a width of {width}, for none was named{choice}"


def official_score(p_yes: float, p_no: float, top_token: str) -> float:
    """Return the score in [-1, 1] by which the released code ranks; our own score is the log-odds of yes.

    The score is P(yes) if the text of the most likely next token contains "yes" in any case, else -P(no). It jumps by
    about 1 at the decision boundary and counts any other token as no.
    """
    return p_yes if "yes" in top_token.lower() else -p_no


def official_scores(verifier: LanguageModelVerifier, prompt: str, candidates: Candidates) -> list[float]:
    """Return `official_score` per candidate. Raises InvalidRequest for a head, which gives no token probabilities."""
    if verifier.model.head is not None:
        raise InvalidRequest(f"verifier {verifier.name} answers by a head: it has no official score, use its own")
    probs_NV = verifier.logprobs(prompt, candidates).exp()
    yes, no = verifier.answer_token_ids
    return [
        official_score(float(probs_V[yes]), float(probs_V[no]), _top_token_text(probs_V, verifier.tokenizer))
        for probs_V in probs_NV
    ]


def _top_token_text(probs_V: Tensor, tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode([int(probs_V.argmax())]))


def keeps_vocabulary(model: str) -> bool:
    """Tell whether the released loader keeps a model's vocabulary, which depends on its hub id or folder name."""
    name = Path(model).resolve().name if is_dir(model) else model
    return any(word in name.lower() for word in _UNRESIZED_MODELS)


def add_unknown_token(
    tokenizer: PreTrainedTokenizerBase, tensors: Mapping[str, Tensor]
) -> tuple[int, dict[str, Tensor]]:
    """Add an unknown token to the tokenizer, as the released loader does; return the vocabulary size and all tensors.

    The size is the tokenizer's length rounded up to a multiple of 64; the last embedding is the mean of the others.
    Embeddings become float32: the released loader takes the mean in the dtype in use, so rounding waits until then.
    """
    num_added = tokenizer.add_special_tokens({"unk_token": _UNKNOWN_TOKEN})
    vocab_size = math.ceil(len(tokenizer) / _VOCAB_MULTIPLE) * _VOCAB_MULTIPLE
    embeddings = [name for name in (INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS) if name in tensors]
    return vocab_size, {**tensors, **{name: _resized(tensors[name], vocab_size, num_added) for name in embeddings}}


def _resized(weight_VE: Tensor, vocab_size: int, num_added: int) -> Tensor:
    kept_VE = weight_VE[: vocab_size - num_added].float()
    return torch.cat([kept_VE, kept_VE.mean(0).expand(vocab_size - len(kept_VE), -1)])


def connector_module(connector: Connector) -> nn.Module:
    """Return the connector's layers under their published names."""
    return nn.ModuleDict({"model": nn.ModuleDict({"mm_projector": connector.layers})})


def _verifier_config(source: PublishedSource) -> LanguageModelVerifierConfig:
    statistics = source.statistics
    return LanguageModelVerifierConfig(
        generator=source.architecture,
        generator_fingerprint=None,
        reads=source.config.reads,
        statistics=statistics.kind if statistics else "none",
        tokens=statistics.tokens if statistics else None,
        width=source.config.mm_hidden_size,
        published_config=source.config.to_dict(),
    )


def _connector(
    source: PublishedSource, config: LanguageModelVerifierConfig, tensors: Mapping[str, Tensor], embedding_width: int
) -> Connector:
    connector = config.new_connector(source.verifier_input, embedding_width)
    own_tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(CONNECTOR_PREFIX)}
    assign_weights(connector_module(connector), own_tensors, source.folder, keep_dtypes=True)
    if source.statistics is not None:
        connector.set_statistics(source.statistics.mean_D, source.statistics.variance_D)
    return connector


def _language_model(
    source: PublishedSource, tensors: Mapping[str, Tensor], vocab_size: int, dtype: torch.dtype | None
) -> Qwen2ForCausalLM:
    tied = (OUTPUT_EMBEDDINGS,) if source.config.tie_word_embeddings else ()
    others = (CONNECTOR_PREFIX, _TOWER_PREFIX, *tied)
    own_tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(others)}
    config = source.config.language_model_config(vocab_size)
    model = library_model_from_tensors(Qwen2ForCausalLM, config, own_tensors, source.folder, dtype or torch.float32)
    if dtype is None:  # float32 holds every dtype, so casting back loses nothing
        for name, weight in model.named_parameters():
            weight.data = weight.data.to(own_tensors[name].dtype)
    return model
