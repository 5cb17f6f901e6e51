"""Results: the images of a search with the record that `result.json` holds, and the provenance of figures."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL.Image import Image
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from forejudge.expected_improvement import Prior
from forejudge.generators.base import Generator
from forejudge.hub import Source
from forejudge.options import SamplingParams
from forejudge.policies import StopReason
from forejudge.search import SearchOutput
from forejudge.types import BROKEN, IMAGE, passed
from forejudge.verifiers.base import Verifier


@dataclass(frozen=True)
class Result:
    """Result of a search. `images` maps candidate indices to finished images, best first."""

    record: "SearchRecord"
    images: Mapping[int, Image]

    @property
    def image(self) -> Image:
        """Image of the winner."""
        return self.images[self.record.winner]

    @property
    def winner(self) -> "CandidateRecord":
        """Record of the winner."""
        return self.record.candidates[self.record.winner]

    @property
    def candidates(self) -> tuple["CandidateRecord", ...]:
        """Records of all candidates used, in the order of generation."""
        return self.record.candidates

    @property
    def timings(self) -> dict[str, float]:
        """Seconds by stage: encode, prefix, verify, suffix, decode, and total."""
        return self.record.timings


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Score = Annotated[
    float,
    BeforeValidator(lambda score: BROKEN.score if score is None else score),
    PlainSerializer(lambda score: None if score == BROKEN.score else score, when_used="json"),
]
"""Score of a candidate; JSON has no infinity, and null for the score of a broken image."""


class CandidateRecord(_Record):
    """One candidate and its verdict. `stage` is the stage it was generated to.

    The image of a `broken` one is not finite; if that was known before scoring, it has no score. That of a `refined`
    one took one denoising step more.
    """

    index: int
    seed: int
    score: Score
    log_odds: float | None
    p_yes: float | None
    p_no: float | None
    probability: float | None
    stage: str
    broken: bool = False
    refined: bool = False


class Settings(_Record):
    """Everything that decides a result, so that it can be reproduced.

    `limits` are the options that could end the search, `prior` the verifier's: with the verdicts, they decide where it
    ends, unless there is a time budget. `diverse` is the weight of differences among the images.
    """

    generator: str
    verifier: str
    seed: int | None
    image_index: int
    limits: dict[str, int | float] = {}
    diverse: float = 0.0
    prior: Prior | None = None
    sampling: SamplingParams
    generator_options: dict[str, Any]
    device: str
    dtype: str
    batch_size: int | None
    compiled: bool = False
    warnings: tuple[str, ...]


class SourceRecord(_Record):
    """Origin of a part: a folder or hub id, the revision asked for and the commit loaded.

    `weights` is a digest of the weights. `part` is generator, verifier, or transformer if the generator's has its own
    repository.
    """

    part: str
    model: str
    revision: str | None
    commit: str | None
    weights: str | None

    @classmethod
    def from_source(cls, part: str, source: Source | None, name: str, weights: str | None = None) -> "SourceRecord":
        """Describe a source; `name` stands for a part that was passed in, not loaded."""
        if source is None:
            return cls(part=part, model=name, revision=None, commit=None, weights=weights)
        return cls(part=part, model=source.model, revision=source.revision, commit=source.commit, weights=weights)


class SearchRecord(_Record):
    """One Best-of-N search as JSON. Times are seconds.

    `n` candidates were used; `unused` more were generated in the batch that ended the search. `passed` says whether
    the winner's calibrated probability reaches 0.5; null without calibration.
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


def search_record(
    prompt: str,
    seeds: Sequence[int],
    output: SearchOutput,
    settings: Settings,
    generator: Generator,
    verifier: Verifier,
) -> SearchRecord:
    """Record a search: what was asked for, found and used."""
    scored_stage = max(verifier.reads)
    records = tuple(
        CandidateRecord(
            index=index,
            seed=seeds[index],
            stage=str(IMAGE if index in output.images else scored_stage),
            broken=index in output.broken,
            refined=index in output.refined,
            **vars(verdict),
        )
        for index, verdict in enumerate(output.verdicts)
    )
    winner = next(iter(output.images))
    return SearchRecord(
        prompt=prompt,
        candidates=records,
        winner=winner,
        passed=passed(output.verdicts[winner].probability),
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


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    return {name: version(name) for name in ("forejudge", "torch", "diffusers", "transformers")}


def provenance(device: torch.device) -> dict[str, str]:
    """Return command, commit, device and versions with which a figure or weights are made.

    Absolute paths are cut to their last part.
    """
    command = " ".join([_program(Path(sys.argv[0])), *map(_hide_parent_folders, sys.argv[1:])])
    return {"command": command, "commit": _commit(), "device": _describe_device(device)} | package_versions()


def _program(path: Path) -> str:
    """Name a program as a user calls it; `python -m forejudge` is forejudge."""
    if path.name != "__main__.py":
        return path.name
    return "forejudge" if path.parent.name == "forejudge" else f"python -m {path.parent.name}"


def _hide_parent_folders(argument: str) -> str:
    """Cut an absolute path to its last part, also as the value in --name=value: records should not name a machine."""
    option, separator, value = argument.rpartition("=")
    return f"{option}{separator}{Path(value).name}" if Path(value).is_absolute() else argument


def _commit() -> str:
    """Return the commit of the sources, marked if they have changes; "unknown" outside a repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
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
