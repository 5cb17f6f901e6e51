"""The generator contract: encode a prompt, start candidates from noise, advance them to any stage.

A generator of a new architecture is one file with a class like this and one row in the table of `loading`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Generic, Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from forejudge.config_files import read_config
from forejudge.errors import InvalidRequest, validation_message
from forejudge.files import is_file
from forejudge.hub import Source
from forejudge.options import SamplingParams as SamplingParams
from forejudge.types import Candidates, Grid, Stage

OPTIONS_FILE = "forejudge.json"
ConditioningT = TypeVar("ConditioningT")


class GeneratorOptions(BaseModel):
    """Settings of one architecture that change its images and are fixed when it is loaded."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_pipeline(cls, pipeline: Any, overrides: Mapping[str, Any]) -> Self:
        """Take `overrides`, then OPTIONS_FILE in the pipeline's folder, then the defaults.

        Raises InvalidRequest for an unknown option or an invalid value.
        """
        folder = pipeline.name_or_path  # None for a pipeline assembled from components
        path = Path(folder) / OPTIONS_FILE if folder else None
        configured = read_config(path, cls) if path is not None and is_file(path) else cls()
        try:
            return cls.model_validate({**configured.model_dump(), **overrides})
        except ValidationError as error:
            names = ", ".join(cls.model_fields) or "none"
            raise InvalidRequest(f"generator option {validation_message(error)}; options are: {names}") from None


Dimension = Annotated[int, Field(gt=0, le=2**20)]


class Architecture(BaseModel):
    """Shape of a generator's transformer: all that a hidden-state verifier, a recipe or an import needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    transformer: str  # class name
    width: Dimension  # of the hidden state
    num_blocks: Dimension
    latent_channels: Dimension
    latent_size: Dimension  # rows, and columns, of tokens at the generator's default image size
    text_width: Dimension

    @property
    def num_tokens(self) -> int:
        """Tokens of one image at the generator's default size."""
        return self.latent_size**2


class Generator(ABC, Generic[ConditioningT]):
    """A diffusion transformer whose forward pass can stop after any block and continue later."""

    name: str  # folder or hub id
    architecture: Architecture
    device: torch.device
    dtype: torch.dtype
    fingerprint: str  # digest of everything that generates: weights, adapters, configs, tokenizers and options
    sources: tuple[Source, ...] = ()  # of the pipeline, then of its transformer if that has its own repository
    defaults: SamplingParams = SamplingParams()
    options: GeneratorOptions = GeneratorOptions()
    vocabulary: frozenset[str] | None = None  # all words of the prompts it was trained on, if they are few

    @abstractmethod
    def check(self, prompt: str, sampling: SamplingParams) -> None:
        """Refuse with InvalidRequest what cannot be generated: an empty or too long prompt, a size, a number of steps.

        Runs tokenizers but no model, so that thousands of prompts are checked in seconds.
        """

    def grid(self, sampling: SamplingParams) -> Grid | None:
        """Return the grid of an image's tokens, for `Candidates.grid`; None for a square or if it is unknown.

        Raises InvalidRequest for a size that cannot be generated.
        """
        return None

    def unknown_words(self, prompt: str) -> list[str]:
        """Return the words of a prompt that are not in the vocabulary, each once; none without a vocabulary."""
        words = dict.fromkeys(re.findall(r"\w+", prompt.lower()))
        return [] if self.vocabulary is None else [word for word in words if word not in self.vocabulary]

    @abstractmethod
    def encode(self, prompt: str, sampling: SamplingParams) -> ConditioningT:
        """Encode a prompt once for all its candidates. Raises the same errors as `check`."""

    def encode_without_padding(self, prompt: str, sampling: SamplingParams) -> ConditioningT:
        """Encode a prompt without text padding, if padding has no weight. Raises the same errors as `encode`.

        Encoding and generating are faster, and candidates equal those of `encode` up to rounding.
        """
        return self.encode(prompt, sampling)

    def compiled(self) -> Self:
        """Return a copy with compiled transformer blocks and decoder, or itself if nothing can be compiled.

        Candidates are equal up to rounding. The first single candidate and the first batch wait for the compiler.
        """
        return self

    def modules(self) -> dict[str, nn.Module]:
        """Return the models that stay in memory during a search, by component name."""
        return {}

    def text_states(self, conditioning: ConditioningT) -> Tensor | None:
        """Return the text states (L, D) of an encoded prompt, without padding; None if it has none to show."""
        return None

    @abstractmethod
    def start(self, conditioning: ConditioningT, seeds: tuple[int, ...]) -> Candidates:
        """Return one candidate of pure noise per seed."""

    @abstractmethod
    def advance(self, candidates: Candidates, stages: Iterable[Stage]) -> Candidates:
        """Advance candidates to the furthest of `stages`, with a view at each of them."""

    def with_steps(self, candidates: Candidates, steps: int) -> Candidates:
        """Return candidates of the first step that go on in another number of steps, as if begun so.

        Raises InvalidRequest where the first step depends on that number, or is over.
        """
        raise InvalidRequest(f"{self.name} cannot change the number of steps once it has begun")
