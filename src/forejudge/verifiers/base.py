"""What a verifier is: the stages it reads, and one verdict for each candidate that stands there."""

from abc import ABC, abstractmethod

from forejudge.generators.base import Generator
from forejudge.hub import Source
from forejudge.types import Candidates, Stage, Verdict


class Verifier(ABC):
    """Judges candidates; it never chooses among them."""

    name: str
    reads: frozenset[Stage]
    calibrated: bool  # whether its verdicts carry a probability
    digest: str  # tells its weights from any others
    source: Source | None = None  # where it was loaded from

    @abstractmethod
    def check(self, generator: Generator) -> list[str]:
        """Warnings about a generator that it can read but was not made for.

        Raises MismatchError, naming both values, for one that it cannot read.
        """

    def at_step(self, step: int) -> "Verifier":
        """The same verifier, reading in another denoising step, counted from 0; finished pictures have none."""
        return self

    def compiled(self) -> "Verifier":
        """The same verifier compiled, or itself where nothing can be; verdicts are equal but for rounding."""
        return self

    @abstractmethod
    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """One verdict for each candidate, in their order; the candidates stand at the stages of `reads`."""
