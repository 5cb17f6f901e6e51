"""Where a published verifier comes from: its folder, and what the user names because the folder does not say it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from forejudge.checkpoint import read_config
from forejudge.errors import CheckpointError, InvalidRequest, MismatchError
from forejudge.generators.base import Architecture
from forejudge.hub import Source
from forejudge.library_calls import renamed_in_transformers
from forejudge.library_models import load_tokenizer
from forejudge.verifiers.made_for import SANA_SPRINT_1_6B, architecture_named
from forejudge.verifiers.published_config import PUBLISHED_CONFIG_FILE, PublishedConfig
from forejudge.verifiers.published_statistics import Statistics, find_statistics, read_statistics
from forejudge.verifiers.reading import Reading, reading_named


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
