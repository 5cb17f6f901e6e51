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

from forejudge.checkpoint import fill_strictly, load_tensors, read_config, renamed_in_transformers
from forejudge.errors import CheckpointError, InvalidRequest, MismatchError
from forejudge.generators.base import Architecture
from forejudge.hub import Source
from forejudge.library_models import library_model_of, load_tokenizer
from forejudge.types import Candidates
from forejudge.verifiers.config import SANA_SPRINT_1_6B, VerifierConfig, architecture_named
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.inputs import Reading, reading_named
from forejudge.verifiers.language_model import LanguageModelVerifier, YesNoModel
from forejudge.verifiers.published_format import (
    PUBLISHED_CONFIG_FILE,
    PublishedConfig,
    Statistics,
    find_statistics,
    read_statistics,
)

# FOLDED: The score with which the published method ranks candidates, for comparison: ours is the log-odds of yes.


def official_score(p_yes: float, p_no: float, most_likely: str) -> float:
    """+P(yes) where the most likely next token's text contains "yes" in any case, -P(no) otherwise; in [-1, 1].

    It jumps by about 1 where the decision turns, and takes any other token for a no.
    """
    return p_yes if "yes" in most_likely.lower() else -p_no


def official_scores(verifier: LanguageModelVerifier, prompt: str, candidates: Candidates) -> list[float]:
    """`official_score` of each candidate. Raises InvalidRequest for a verifier with a head, which names no token."""
    if verifier.model.head is not None:
        raise InvalidRequest(f"verifier {verifier.name} answers by a head, so the official score says nothing of it")
    p_NV = verifier.answered(prompt, candidates).exp()
    yes, no = verifier.answers
    return [official_score(float(p_V[yes]), float(p_V[no]), _most_likely(p_V, verifier.tokenizer)) for p_V in p_NV]


def _most_likely(p_V: Tensor, tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode([int(p_V.argmax())]))


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
        found = architecture_named(self.generator)
        if self.config.block is not None and width != found.width:
            raise MismatchError(
                f"{self.origin.model} reads states of width {width}, {self.generator} has width {found.width}"
            )
        return found

    @cached_property
    def reading(self) -> Reading:
        """What it reads, with its vision tower if it has one. Raises MismatchError for too few blocks."""
        reading = reading_named(self.config.reads, self.tower)
        if self.architecture is not None:
            reading.width(self.architecture)
        return reading

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
        block, given = self.config.block, self.statistics_files
        if block is None or not self.config.mm_vision_normalize:
            if given is not None:
                raise InvalidRequest(
                    f"{self.origin.model} standardises nothing, so statistics would change nothing: leave them out"
                )
            return None
        if given is not None:
            mean, variance = (path if path.exists() else self.folder / path for path in given)
            return mean, variance
        try:
            return find_statistics(self.folder, block)
        except CheckpointError as error:
            raise CheckpointError(f"{error}: {self._command('--statistics MEAN VARIANCE')}") from None

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer, with the chat template that the question is put through."""
        with renamed_in_transformers():  # the config beside it is read, too
            tokenizer: PreTrainedTokenizerBase = load_tokenizer(AutoTokenizer, self.folder)
        if not tokenizer.chat_template:
            raise CheckpointError(f"{self.folder} holds a tokenizer without a chat template: the question needs one")
        return tokenizer

    def steps(self) -> list[str]:
        """What is read and supposed, in words."""
        reads = self.reading.name
        of = f"the vision tower {self.tower}" if self.config.block is None else self.config.mm_vision_select_feature
        files = " and ".join(path.name for path in self._statistics_files or ())
        return [
            f"reads {reads}, from {of}",
            f"generator: {self._made_for()}; on which weights of it the verifier was trained is not known",
            f"standardises by {self.statistics}: {files}" if self.statistics else "standardises nothing",
        ]

    def _made_for(self) -> str:
        if self.generator is None and self.architecture is not None:
            return f"SANA-Sprint 1.6B, for none was named and the width is {SANA_SPRINT_1_6B.width}"
        return self.generator or f"not known beyond a width of {self.config.mm_hidden_size}, for none was named"

    def _command(self, option: str) -> str:
        return f"name it once by forejudge verifier import {self.origin.model} FOLDER {option}"


# FOLDED: What the published verifiers' own loader does to a vocabulary without an unknown token.


INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS = "model.embed_tokens.weight", "lm_head.weight"
_UNKNOWN = "[UNK]"
_ROWS_UNIT = 64
_LEFT_ALONE = ("qwen", "gemma")


def keeps_its_vocabulary(model: str) -> bool:
    """Whether that loader leaves a model alone, which it decides by the name: a hub id, or a folder's last part."""
    name = Path(model).resolve().name if Path(model).is_dir() else model
    return any(word in name.lower() for word in _LEFT_ALONE)


def add_unknown_token(
    tokenizer: PreTrainedTokenizerBase, tensors: Mapping[str, Tensor]
) -> tuple[int, dict[str, Tensor]]:
    """Rows of the vocabulary, and the tensors with embeddings of so many rows, the last one the mean of all others.

    Adds the token to the tokenizer. The rows are the next multiple of 64 from its length on; embeddings become float32,
    so that the mean, which that loader takes in the dtype in use, is rounded only when it is used.
    """
    added = tokenizer.add_special_tokens({"unk_token": _UNKNOWN})
    rows = math.ceil(len(tokenizer) / _ROWS_UNIT) * _ROWS_UNIT
    resized = {
        name: _resized(tensors[name], rows, added) for name in (INPUT_EMBEDDINGS, OUTPUT_EMBEDDINGS) if name in tensors
    }
    return rows, {**tensors, **resized}


def _resized(weight_VE: Tensor, rows: int, added: int) -> Tensor:
    kept_VE = weight_VE[: rows - added].float()
    return torch.cat([kept_VE, kept_VE.mean(0).expand(rows - len(kept_VE), -1)])


CONNECTOR_PREFIX = "model.mm_projector."
_TOWER_PREFIX = "model.vision_tower."


@dataclass(frozen=True)
class Imported:
    """A published verifier as one of ours, and what was done and supposed on the way, in words."""

    verifier: LanguageModelVerifier
    steps: tuple[str, ...]


def import_published(
    source: PublishedSource,
    name: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Imported:
    """Read a published verifier; `dtype` None keeps each tensor's own. Raises what `PublishedSource` raises."""
    steps, tokenizer, tensors = source.steps(), source.tokenizer(), load_tensors(source.folder)
    rows = source.config.vocab_size
    if tokenizer.unk_token is None and not keeps_its_vocabulary(source.origin.model):
        rows, tensors = add_unknown_token(tokenizer, tensors)
        steps.append(
            f"the tokenizer has no unknown token: as the published loader does, [UNK] is added and the vocabulary goes "
            f"from {source.config.vocab_size} to {rows} rows, the last one the mean of the others"
        )
    if any(name.startswith(_TOWER_PREFIX) for name in tensors):
        steps.append(f"the checkpoint's own weights of a vision tower are not read: the tower is {source.tower}")
    config = _config(source)
    language_model = _language_model(source, tensors, rows, dtype)
    connector = _connector(source, config, tensors, language_model.config.hidden_size)
    model = YesNoModel(connector if dtype is None else connector.to(dtype), language_model).to(device)
    source.reading.to(torch.device(device), dtype or torch.float32)
    verifier = LanguageModelVerifier(name or str(source.origin), config, model, tokenizer, source.reading)
    verifier.folder, verifier.source = source.folder, source.origin
    return Imported(verifier, tuple(steps))


def connector_module(connector: Connector) -> nn.Module:
    """The connector's layers under the names that they have in the published layout."""
    return nn.ModuleDict({"model": nn.ModuleDict({"mm_projector": connector.layers})})


def _config(source: PublishedSource) -> VerifierConfig:
    statistics = source.statistics
    return VerifierConfig(
        generator=source.architecture,
        generator_fingerprint=None,
        reads=source.config.reads,
        statistics=statistics.kind if statistics else "none",
        tokens=statistics.tokens if statistics else None,
        width=source.config.mm_hidden_size,
        published_config=source.config.described(),
    )


def _connector(
    source: PublishedSource, config: VerifierConfig, tensors: Mapping[str, Tensor], embedding_width: int
) -> Connector:
    connector = config.new_connector(source.reading, embedding_width)
    own = {name: tensor for name, tensor in tensors.items() if name.startswith(CONNECTOR_PREFIX)}
    fill_strictly(connector_module(connector), own, source.folder, keep_dtypes=True)
    if source.statistics is not None:
        connector.set_statistics(source.statistics.mean_D, source.statistics.variance_D)
    return connector


def _language_model(
    source: PublishedSource, tensors: Mapping[str, Tensor], rows: int, dtype: torch.dtype | None
) -> Qwen2ForCausalLM:
    not_its = (CONNECTOR_PREFIX, _TOWER_PREFIX, *([OUTPUT_EMBEDDINGS] if source.config.tie_word_embeddings else []))
    own = {name: tensor for name, tensor in tensors.items() if not name.startswith(not_its)}
    config = source.config.language_model(rows)
    model = library_model_of(Qwen2ForCausalLM, config, own, source.folder, dtype or torch.float32)
    if dtype is None:  # back from float32, without loss
        for name, weight in model.named_parameters():
            weight.data = weight.data.to(own[name].dtype)
    return model
