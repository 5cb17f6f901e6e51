"""Verifiers in their published layout (LLaVA around Qwen2), read as one of ours; every step of it is stated.

Habits of their own loader that change probabilities are followed, such as what it does to the vocabulary. Generation
settings are not read: they filter what is sampled, and here nothing is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Qwen2ForCausalLM

from forejudge.checkpoint import fill_strictly, load_tensors
from forejudge.library_models import library_model_of
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.language_model import LanguageModelVerifier
from forejudge.verifiers.published_source import PublishedSource
from forejudge.verifiers.published_vocabulary import OUTPUT_EMBEDDINGS, add_unknown_token, keeps_its_vocabulary
from forejudge.verifiers.verifier_config import VerifierConfig
from forejudge.verifiers.yes_no import YesNoModel

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
