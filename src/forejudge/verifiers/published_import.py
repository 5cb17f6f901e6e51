"""Verifiers in their published layout (LLaVA around Qwen2), read as one of ours; every step of it is stated.

Habits of their own loader that change probabilities are followed, such as what it does to the vocabulary. Generation
settings are not read: they filter what is sampled, and here nothing is.
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
from forejudge.generators import load_architecture
from forejudge.generators.base import Architecture
from forejudge.generators.known import SANA_SPRINT_1_6B
from forejudge.hub import Source
from forejudge.library_models import library_model_from_tensors, load_tokenizer
from forejudge.types import Candidates
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.inputs import VerifierInput, build_verifier_input
from forejudge.verifiers.language_model import LanguageModelVerifier, LanguageModelVerifierConfig, YesNoModel
from forejudge.verifiers.published_format import (
    PUBLISHED_CONFIG_FILE,
    PublishedConfig,
    Statistics,
    find_statistics,
    read_statistics,
)

# FOLDED: The score with which the published method ranks candidates, for comparison: ours is the log-odds of yes.


def official_score(p_yes: float, p_no: float, top_token: str) -> float:
    """+P(yes) where the most likely next token's text contains "yes" in any case, -P(no) otherwise; in [-1, 1].

    It jumps by about 1 where the decision turns, and takes any other token for a no.
    """
    return p_yes if "yes" in top_token.lower() else -p_no


def official_scores(verifier: LanguageModelVerifier, prompt: str, candidates: Candidates) -> list[float]:
    """`official_score` of each candidate. Raises InvalidRequest for a verifier with a head, which names no token."""
    if verifier.model.head is not None:
        raise InvalidRequest(f"verifier {verifier.name} answers by a head, so the official score says nothing of it")
    probs_NV = verifier.logprobs(prompt, candidates).exp()
    yes, no = verifier.answer_token_ids
    return [
        official_score(float(probs_V[yes]), float(probs_V[no]), _top_token_text(probs_V, verifier.tokenizer))
        for probs_V in probs_NV
    ]


def _top_token_text(probs_V: Tensor, tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode([int(probs_V.argmax())]))


# FOLDED: Where a published verifier comes from: its folder, and what the user names because the folder does not say it.


@dataclass(frozen=True)
class PublishedSource:
    """Where it lies, with the user's files of mean and variance, generator and vision tower.

    The files may be named within the folder. Without names: statistics that lie in the folder, SANA-Sprint 1.6B where
    the width is that one's, and the tower that the config names. Everything raises CheckpointError for what is missing,
    truncated or foreign, and tells the command where it has to be named.
    """

    origin: Source
    statistics_files: tuple[Path, Path] | None = None
    generator: str | None = None
    vision_tower: str | None = None

    @property
    def folder(self) -> Path:
        """The files."""
        return self.origin.folder

    @cached_property
    def config(self) -> PublishedConfig:
        """Its config.json."""
        return read_config(self.folder / PUBLISHED_CONFIG_FILE, PublishedConfig)

    @cached_property
    def architecture(self) -> Architecture | None:
        """Of the generator it reads, None where that is not known. Raises MismatchError for one of another width."""
        width = self.config.mm_hidden_size
        if self.generator is None:
            return SANA_SPRINT_1_6B if width == SANA_SPRINT_1_6B.width else None
        architecture = load_architecture(self.generator)
        if self.config.block is not None and width != architecture.width:
            raise MismatchError(
                f"{self.origin.model} reads states of width {width}, {self.generator} has width {architecture.width}"
            )
        return architecture

    @cached_property
    def verifier_input(self) -> VerifierInput:
        """What it reads, with its vision tower if it has one. Raises MismatchError for too few blocks."""
        verifier_input = build_verifier_input(self.config.reads, self.tower)
        if self.architecture is not None:
            verifier_input.width(self.architecture)
        return verifier_input

    @property
    def tower(self) -> str:
        """A folder or a hub id; of weights in the checkpoint nothing is taken."""
        return self.vision_tower or self.config.mm_vision_tower

    @cached_property
    def statistics(self) -> Statistics | None:
        """None where states are read as they are, and of CLIP. Raises InvalidRequest where files are of no use."""
        if self._statistics_files is None:
            return None
        tokens = None if self.architecture is None else self.architecture.latent_size**2
        return read_statistics(self._statistics_files, self.config.mm_hidden_size, tokens)

    @cached_property
    def _statistics_files(self) -> tuple[Path, Path] | None:
        block, user_files = self.config.block, self.statistics_files
        if block is None or not self.config.mm_vision_normalize:
            if user_files is not None:
                raise InvalidRequest(
                    f"{self.origin.model} standardises nothing, so statistics would change nothing: leave them out"
                )
            return None
        if user_files is not None:
            mean, variance = (path if path.exists() else self.folder / path for path in user_files)
            return mean, variance
        try:
            return find_statistics(self.folder, block)
        except CheckpointError as error:
            raise CheckpointError(f"{error}: {self._command('--statistics MEAN VARIANCE')}") from None

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer, with the chat template that the question is put through."""
        with ignore_transformers_deprecations():  # the config beside it is read, too
            tokenizer: PreTrainedTokenizerBase = load_tokenizer(AutoTokenizer, self.folder)
        if not tokenizer.chat_template:
            raise CheckpointError(f"{self.folder} holds a tokenizer without a chat template: the question needs one")
        return tokenizer

    def notes(self) -> list[str]:
        """What is read and supposed, in words."""
        reads = self.verifier_input.name
        of = f"the vision tower {self.tower}" if self.config.block is None else self.config.mm_vision_select_feature
        files = " and ".join(path.name for path in self._statistics_files or ())
        return [
            f"reads {reads}, from {of}",
            f"generator: {self._generator_note()}; on which weights of it the verifier was trained is not known",
            f"standardises by {self.statistics}: {files}" if self.statistics else "standardises nothing",
        ]

    def _generator_note(self) -> str:
        if self.generator is None and self.architecture is not None:
            return f"SANA-Sprint 1.6B, for none was named and the width is {SANA_SPRINT_1_6B.width}"
        return self.generator or f"not known beyond a width of {self.config.mm_hidden_size}, for none was named"

    def _command(self, option: str) -> str:
        return f"name it once by forejudge verifier import {self.origin.model} FOLDER {option}"


# FOLDED: What the published verifiers' own loader does to a vocabulary without an unknown token.


INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS = "model.embed_tokens.weight", "lm_head.weight"
_UNKNOWN = "[UNK]"
_VOCAB_MULTIPLE = 64
_UNRESIZED_MODELS = ("qwen", "gemma")


def keeps_vocabulary(model: str) -> bool:
    """Whether that loader leaves a model alone, which it decides by the name: a hub id, or a folder's last part."""
    name = Path(model).resolve().name if Path(model).is_dir() else model
    return any(word in name.lower() for word in _UNRESIZED_MODELS)


def add_unknown_token(
    tokenizer: PreTrainedTokenizerBase, tensors: Mapping[str, Tensor]
) -> tuple[int, dict[str, Tensor]]:
    """Rows of the vocabulary, and the tensors with embeddings of so many rows, the last one the mean of all others.

    Adds the token to the tokenizer. The rows are the next multiple of 64 from its length on; embeddings become float32,
    so that the mean, which that loader takes in the dtype in use, is rounded only when it is used.
    """
    num_added = tokenizer.add_special_tokens({"unk_token": _UNKNOWN})
    vocab_size = math.ceil(len(tokenizer) / _VOCAB_MULTIPLE) * _VOCAB_MULTIPLE
    resized = {
        name: _resized(tensors[name], vocab_size, num_added)
        for name in (INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS)
        if name in tensors
    }
    return vocab_size, {**tensors, **resized}


def _resized(weight_VE: Tensor, vocab_size: int, num_added: int) -> Tensor:
    kept_VE = weight_VE[: vocab_size - num_added].float()
    return torch.cat([kept_VE, kept_VE.mean(0).expand(vocab_size - len(kept_VE), -1)])


CONNECTOR_PREFIX = "model.mm_projector."
_TOWER_PREFIX = "model.vision_tower."


@dataclass(frozen=True)
class ImportedVerifier:
    """A published verifier as one of ours, and what was done and supposed on the way, in words."""

    verifier: LanguageModelVerifier
    notes: tuple[str, ...]


def import_published(
    source: PublishedSource,
    name: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> ImportedVerifier:
    """Read a published verifier; `dtype` None keeps each tensor's own. Raises what `PublishedSource` raises."""
    notes, tokenizer, tensors = source.notes(), source.tokenizer(), load_tensors(source.folder)
    vocab_size = source.config.vocab_size
    if tokenizer.unk_token is None and not keeps_vocabulary(source.origin.model):
        vocab_size, tensors = add_unknown_token(tokenizer, tensors)
        notes.append(
            f"the tokenizer has no unknown token: as the published loader does, [UNK] is added and the vocabulary goes "
            f"from {source.config.vocab_size} to {vocab_size} rows, the last one the mean of the others"
        )
    if any(name.startswith(_TOWER_PREFIX) for name in tensors):
        notes.append(f"the checkpoint's own weights of a vision tower are not read: the tower is {source.tower}")
    config = _config(source)
    language_model = _language_model(source, tensors, vocab_size, dtype)
    connector = _connector(source, config, tensors, language_model.config.hidden_size)
    model = YesNoModel(connector if dtype is None else connector.to(dtype), language_model).to(device)
    source.verifier_input.to(torch.device(device), dtype or torch.float32)
    verifier = LanguageModelVerifier(name or str(source.origin), config, model, tokenizer, source.verifier_input)
    verifier.folder, verifier.source = source.folder, source.origin
    return ImportedVerifier(verifier, tuple(notes))


def connector_module(connector: Connector) -> nn.Module:
    """The connector's layers under the names that they have in the published layout."""
    return nn.ModuleDict({"model": nn.ModuleDict({"mm_projector": connector.layers})})


def _config(source: PublishedSource) -> LanguageModelVerifierConfig:
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
    excluded_prefixes = (
        CONNECTOR_PREFIX,
        _TOWER_PREFIX,
        *([OUTPUT_EMBEDDINGS] if source.config.tie_word_embeddings else []),
    )
    own_tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(excluded_prefixes)}
    config = source.config.language_model(vocab_size)
    model = library_model_from_tensors(Qwen2ForCausalLM, config, own_tensors, source.folder, dtype or torch.float32)
    if dtype is None:  # back from float32, without loss
        for name, weight in model.named_parameters():
            weight.data = weight.data.to(own_tensors[name].dtype)
    return model
