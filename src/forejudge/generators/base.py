"""What a generator is. Adding one takes a file with a class like this and a line in the table of `loading`."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from forejudge.config_files import read_config
from forejudge.errors import InvalidRequest
from forejudge.hub import Source
from forejudge.types import Candidates, Stage

OPTIONS_FILE = "forejudge.json"


class SamplingParams(BaseModel):
    """How an image is drawn. Sizes in pixels; None stands for what the generator was made for.

    `lora_scale` weighs LoRA adapters that the pipeline carries.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(default=1, ge=1, le=64)
    guidance_scale: float | None = Field(default=None, ge=0)
    height: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    lora_scale: float = 1.0


class Options(BaseModel):
    """What else decides how a generator draws, of one architecture; set once, when it is loaded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_pipeline(cls, pipeline: Any, overrides: Mapping[str, Any]) -> Self:
        """Those given; for the rest what the pipeline's folder says in OPTIONS_FILE, else the defaults.

        Raises InvalidRequest for an option that there is not or a value that it cannot have.
        """
        folder = pipeline.name_or_path  # None where it was put together from parts
        path = Path(folder) / OPTIONS_FILE if folder else None
        configured = read_config(path, cls) if path is not None and path.is_file() else cls()
        try:
            return cls.model_validate({**configured.model_dump(), **overrides})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise InvalidRequest(
                f"generator option {name}: {first['msg']}; there are {', '.join(cls.model_fields) or 'none'}"
            ) from None


class Architecture(BaseModel):
    """What a hidden-state verifier must know of a generator to read it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    transformer: str  # class name
    width: int
    num_blocks: int
    latent_channels: int
    latent_size: int  # rows and columns of tokens at the generator's own size
    text_width: int


class Generator(ABC):
    """A diffusion transformer whose forward pass can stop after any block and go on from there later."""

    name: str  # folder or hub id it came from
    architecture: Architecture
    device: torch.device
    dtype: torch.dtype
    fingerprint: str  # hash of some of its weights: tells two trainings of one architecture apart
    sources: tuple[Source, ...] = ()  # what was loaded: the pipeline, then its transformer where that has its own
    defaults: SamplingParams = SamplingParams()  # how a picture is drawn where nothing else is asked for
    options: Options = Options()

    @abstractmethod
    def check(self, prompt: str, sampling: SamplingParams) -> None:
        """Raises InvalidRequest for what cannot be drawn: an empty or over-long prompt, a size, a number of steps.

        Of the models only tokenizers work, so that thousands of prompts are checked in seconds.
        """

    @abstractmethod
    def encode(self, prompt: str, sampling: SamplingParams) -> Any:
        """The prompt's conditioning, once for all its candidates. Raises as `check` does."""

    def encode_without_padding(self, prompt: str, sampling: SamplingParams) -> Any:
        """The same without the padding of the text, where padding has no weight; raises as `encode` does.

        Prompts are encoded and candidates drawn faster, and equal but for rounding.
        """
        return self.encode(prompt, sampling)

    def compiled(self) -> Self:
        """The same with its transformer's blocks and its decoder compiled, or itself where nothing can be.

        Candidates are equal but for rounding. The first single one, and the first batch, wait until it is compiled.
        """
        return self

    @abstractmethod
    def start(self, conditioning: Any, seeds: tuple[int, ...]) -> Candidates:
        """Candidates that are noise only, one for each seed."""

    @abstractmethod
    def advance(self, candidates: Candidates, stages: Iterable[Stage]) -> Candidates:
        """Take candidates on from where they stand to the furthest of `stages`, with a view for each of them."""
