"""What a search gives back: the images, and the record of it that `result.json` holds."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from pydantic import BaseModel, ConfigDict

from forejudge.generators.base import Generator, SamplingParams
from forejudge.hub import Source
from forejudge.policies import StopReason
from forejudge.search import SearchOptions, SearchOutput, passed
from forejudge.types import IMAGE
from forejudge.verifiers.base import Verifier


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CandidateRecord(_Record):
    """One candidate and its verdict. `stage` says how far it was drawn."""

    index: int
    seed: int
    score: float
    log_odds: float | None
    p_yes: float | None
    p_no: float | None
    probability: float | None
    stage: str


class Settings(_Record):
    """Everything that decides the result, to make it again."""

    generator: str
    verifier: str
    seed: int | None
    image_index: int
    sampling: SamplingParams
    generator_options: dict[str, Any]
    device: str
    dtype: str
    batch_size: int | None
    compiled: bool = False
    warnings: tuple[str, ...]


class SourceRecord(_Record):
    """Where a part came from: a folder or hub id, the revision asked for and the commit it led to.

    `weights` is a digest that tells its weights from any others. `part` is generator, verifier, or transformer where
    the generator's has a repository of its own.
    """

    part: str
    model: str
    revision: str | None
    commit: str | None
    weights: str | None

    @classmethod
    def from_source(cls, part: str, source: Source | None, name: str, weights: str | None = None) -> "SourceRecord":
        """`name` is what it is called where it was not loaded but given."""
        if source is None:
            return cls(part=part, model=name, revision=None, commit=None, weights=weights)
        return cls(part=part, model=source.model, revision=source.revision, commit=source.commit, weights=weights)


class SearchRecord(_Record):
    """One Best-of-N search, as JSON shows it. Times are seconds.

    `n` candidates were used; `unused` more were drawn in the same chunk as the one that ended the search.
    `passed` tells whether the winner's calibrated probability reaches 0.5; null without calibration.
    """

    prompt: str
    candidates: tuple[CandidateRecord, ...]
    winner: int
    passed: bool | None
    stopped_by: StopReason
    n: int
    unused: int
    timings: dict[str, float]
    settings: Settings
    sources: tuple[SourceRecord, ...] = ()
    versions: dict[str, str]


@dataclass(frozen=True)
class Result:
    """`images` maps candidate indices to finished pictures, best first."""

    record: SearchRecord
    images: Mapping[int, Image]

    @property
    def image(self) -> Image:
        """The winner's picture."""
        return self.images[self.record.winner]

    @property
    def winner(self) -> CandidateRecord:
        """The winner's record."""
        return self.record.candidates[self.record.winner]

    @property
    def candidates(self) -> tuple[CandidateRecord, ...]:
        """All candidates that were used, in the order they were drawn."""
        return self.record.candidates

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by stage: encode, prefix, verify, suffix, decode, and total."""
        return self.record.timings


def package_versions() -> dict[str, str]:
    """The versions that a result depends on."""
    return {name: version(name) for name in ("forejudge", "torch", "diffusers", "transformers")}


# FOLDED: Where and with what a figure or a weight was made.


def provenance(device: torch.device) -> dict[str, str]:
    """Command, commit, device and versions, as plain text. Absolute paths are named by their last part."""
    program = Path(sys.argv[0]).name.replace("__main__.py", "forejudge")  # as `python -m forejudge.cli` has it
    command = " ".join([program, *map(_hide_parent_folders, sys.argv[1:])])
    return {"command": command, "commit": _commit(), "device": _describe_device(device)} | package_versions()


def _hide_parent_folders(argument: str) -> str:
    """Where a file lay on the machine is nobody's affair; also of the value in --name=value."""
    option, separator, value = argument.rpartition("=")
    return f"{option}{separator}{Path(value).name}" if Path(value).is_absolute() else argument


def _commit() -> str:
    """The commit of the sources, marked where they were changed since; "unknown" outside a repository."""
    package_folder = Path(__file__).parent
    git = ["git", "-C", str(package_folder)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{commit} with changes" if status.stdout.strip() else commit


def _describe_device(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return f"{platform.machine()} GPU through MPS"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


# FOLDED: From what a search found to the record of it that `result.json` holds.


def search_record(
    options: SearchOptions, output: SearchOutput, settings: Settings, generator: Generator, verifier: Verifier
) -> SearchRecord:
    """With all that was asked for, found and used."""
    scored_stage = max(verifier.reads)
    records = tuple(
        CandidateRecord(
            index=index,
            seed=options.seeds[index],
            stage=str(IMAGE if index in output.images else scored_stage),
            **vars(verdict),
        )
        for index, verdict in enumerate(output.verdicts)
    )
    winner = output.order[0]
    return SearchRecord(
        prompt=options.prompt,
        candidates=records,
        winner=winner,
        passed=passed(output.verdicts[winner]),
        stopped_by=output.stopped_by,
        n=len(records),
        unused=output.num_generated - len(records),
        timings=output.timings,
        settings=settings,
        sources=_sources(generator, verifier),
        versions=package_versions(),
    )


def _sources(generator: Generator, verifier: Verifier) -> tuple[SourceRecord, ...]:
    pipeline, *transformer = generator.sources or (None,)
    return (
        SourceRecord.from_source("generator", pipeline, generator.name, generator.fingerprint),
        *(SourceRecord.from_source("transformer", source, source.model) for source in transformer if source),
        SourceRecord.from_source("verifier", verifier.source, verifier.name, verifier.digest),
    )
