"""What a search gives back: the images, and the record of it that `result.json` holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from PIL.Image import Image
from pydantic import BaseModel, ConfigDict

from forejudge.budget import EndedBy
from forejudge.generators.base import Sampling
from forejudge.hub import Source


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
    sampling: Sampling
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
    def of(cls, part: str, source: Source | None, name: str, weights: str | None = None) -> "SourceRecord":
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
    ended_by: EndedBy
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
