"""Verifiers: one verdict per candidate, from the stages they read; and the folder that a trained one is kept in.

`LanguageModelVerifier` is the paper's. A new class of trained verifier is a subclass of `PretrainedVerifier` and one
row of VERIFIER_CLASSES (forejudge/verifiers/__init__.py).
"""

import hashlib
import json
import math
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

from forejudge.checkpoint import library_output_errors
from forejudge.config_files import read_config
from forejudge.digests import COMPANIONS, cached_digest, check_checksums, tensors_digest, write_checksums
from forejudge.errors import InvalidRequest, MismatchError
from forejudge.expected_improvement import Prior
from forejudge.files import is_file, write_text
from forejudge.generators.base import Generator
from forejudge.hub import Source, fetch
from forejudge.options import SamplingParams
from forejudge.types import Candidates, Stage, Verdict
from forejudge.verifiers.config import CONFIG_FILE, VerifierConfig
from forejudge.verifiers.inputs import VerifierInput, build_verifier_input, load_verifier_input

_NOT_IN_DIGEST = {"generator", "generator_fingerprint", "generator_source", "prior", "published_config"}


class Verifier(ABC):
    """Scorer of candidates; it never chooses among them."""

    name: str
    reads: frozenset[Stage]
    calibrated: bool  # its verdicts carry a probability
    digest: str  # of its weights
    prior: Prior | None = None  # of its calibrated log-odds
    source: Source | None = None  # of a verifier that was loaded by name

    @abstractmethod
    def check(self, generator: Generator) -> list[str]:
        """Return warnings about a generator that it can read but was not made for.

        Raises MismatchError, naming both values, for one that it cannot read.
        """

    def size_warnings(self, generator: Generator, sampling: SamplingParams) -> list[str]:
        """Return warnings about an image size that it can read but was not trained on."""
        return []

    def at_step(self, step: int) -> "Verifier":
        """Return the verifier reading in another denoising step, counted from 0; finished images have none."""
        return self

    def compiled(self) -> "Verifier":
        """Return the verifier compiled, or itself if it cannot be; verdicts are equal except for rounding."""
        return self

    @abstractmethod
    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """Return one verdict per candidate, in their order; the candidates are at the stages of `reads`."""


ConfigT = TypeVar("ConfigT", bound=VerifierConfig)


class PretrainedVerifier(Verifier, Generic[ConfigT]):
    """Verifier with weights, kept in a folder: its config as verifier.json, its weights, and those of its input.

    A subclass sets `config_class` and writes `load_model`, `save_model`, `weights`, `input_width` and `score`.
    """

    config_class: type[ConfigT]
    folder: Path | None = None  # that it was loaded from
    _known_weights: tuple[Any, str] | None = None  # their versions and their digest

    def __init__(self, name: str, config: ConfigT, verifier_input: VerifierInput | None = None) -> None:
        self.name, self.config = name, config
        self.verifier_input = verifier_input or build_verifier_input(config.reads)
        self.reads = frozenset({self.verifier_input.stage})
        self.calibrated = config.calibration is not None
        self.prior = config.prior

    @classmethod
    @abstractmethod
    def load_model(
        cls,
        folder: Path,
        name: str,
        config: ConfigT,
        verifier_input: VerifierInput,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Self:
        """Build the verifier from the weights in `folder`. Raises CheckpointError naming the file."""

    @abstractmethod
    def save_model(self, folder: Path) -> None:
        """Write the weights that `load_model` reads, in their present dtype."""

    @abstractmethod
    def weights(self) -> Mapping[str, Tensor]:
        """Return all weights but those of the input, by name; `digest` is computed from them."""

    @property
    @abstractmethod
    def input_width(self) -> int:
        """Width D of the tokens that the weights take."""

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path | Source,
        name: str | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Load a verifier's folder or hub id. Raises CheckpointError for a missing, damaged or foreign file."""
        source, device = folder if isinstance(folder, Source) else fetch(str(folder)), torch.device(device)
        config = read_config(source.folder / CONFIG_FILE, cls.config_class)
        verifier_input = load_verifier_input(config.reads, source.folder, dtype)
        verifier = cls.load_model(source.folder, name or str(source), config, verifier_input, device, dtype)
        verifier_input.to(device, dtype)
        check_checksums(source.folder)
        verifier.folder, verifier.source = source.folder, source
        rounding = "float16" if dtype == torch.float16 else "exact"
        files = sorted(source.folder.rglob("*.safetensors"))
        digest = cached_digest(files, f"{cls.__name__} {rounding}", lambda: tensors_digest(verifier._weights.items()))
        verifier._known_weights = verifier._versions, digest
        return verifier

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a verifier's folder; its card and metrics are copied along. Raises OutputError."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / CONFIG_FILE, self.config.model_dump_json(indent=2) + "\n")
        with library_output_errors(folder):
            self.save_model(folder)
            self.verifier_input.save_pretrained(folder)
        write_checksums(folder)
        if self.folder is not None and self.folder.resolve() != folder.resolve():
            for companion in (self.folder / name for name in COMPANIONS):
                if is_file(companion):
                    shutil.copyfile(companion, folder / companion.name)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None) -> str:
        """Upload to a hub repository, created if needed, and return the commit's URL. Raises the hub's errors."""
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        repository = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            commit = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload verifier")
        return commit.commit_url

    def check(self, generator: Generator) -> list[str]:
        """See `Verifier.check`."""
        self.config.check(generator.architecture, generator.name, self.name)
        width = self.verifier_input.width(generator.architecture)
        if width != self.input_width:
            raise MismatchError(
                f"verifier {self.name} reads tokens of width {self.input_width}, but {self.verifier_input.name} of "
                f"{generator.name} has width {width}: use the verifier that was trained for it"
            )
        return list(self.config.mismatch_warnings(generator, self.name))

    def size_warnings(self, generator: Generator, sampling: SamplingParams) -> list[str]:
        """See `Verifier.size_warnings`. Training generates at the generator's default size."""
        trained, grid = generator.grid(generator.defaults), generator.grid(sampling)
        if trained is None or grid is None or grid == trained:
            return []
        return [
            f"verifier {self.name} was trained on {trained[0]} rows of {trained[1]} tokens, these images have "
            f"{grid[0]} rows of {grid[1]}: its verdicts may not hold"
        ]

    def at_step(self, step: int) -> Self:
        """See `Verifier.at_step`."""
        clone = copy(self)
        clone.verifier_input = self.verifier_input.at_step(step)
        clone.reads = frozenset({clone.verifier_input.stage})
        return clone

    def compiled(self) -> Self:
        """See `Verifier.compiled`: the input's weights; a subclass compiles its own."""
        clone = copy(self)
        clone.verifier_input = self.verifier_input.compiled()
        return clone

    def verdict(
        self, score: float, log_odds: float | None = None, p_yes: float | None = None, p_no: float | None = None
    ) -> Verdict:
        """Build a verdict with its calibrated probability. Raises InvalidRequest for a score that is not finite."""
        if not math.isfinite(score):
            raise InvalidRequest(
                f"verifier {self.name} gave score {score}: its weights or what it reads are not finite; use dtype "
                "bfloat16 or float32 in place of float16, or check the weights of verifier and generator"
            )
        calibration = self.config.calibration
        return Verdict(score, log_odds, p_yes, p_no, None if calibration is None else calibration.probability(score))

    def question_tokens(self) -> Any:
        """Return what the verifier makes of a fixed prompt, as JSON types, if it reads prompts."""
        return None

    @property
    def digest(self) -> str:  # type: ignore[override]
        """16 hexadecimal digits that identify all that decides its verdicts: weights, config and tokenizer."""
        if self._known_weights is None or self._known_weights[0] != self._versions:
            self._known_weights = self._versions, tensors_digest(self._weights.items())
        config = self.config.model_dump(mode="json", exclude=_NOT_IN_DIGEST, exclude_defaults=True)
        parts = {"weights": self._known_weights[1], "config": config, "question": self.question_tokens()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def _weights(self) -> dict[str, Tensor]:
        return {**self.weights(), **{f"input.{name}": each for name, each in self.verifier_input.weights().items()}}

    @property
    def _versions(self) -> list[tuple[str, int]]:
        return [(name, weight._version) for name, weight in self._weights.items()]
