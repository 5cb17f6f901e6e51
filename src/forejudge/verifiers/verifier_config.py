"""What a verifier says of itself in its folder's verifier.json: what it reads, of which generator, and how it asks."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, PositiveInt

from forejudge.errors import MismatchError
from forejudge.generators.base import Architecture, Generator
from forejudge.verifiers.calibration import Calibration
from forejudge.verifiers.connector import Connector, StatisticsKind
from forejudge.verifiers.question import PUBLISHED_QUESTION, check_question
from forejudge.verifiers.reading import Reading, ReadingName

CONFIG_FILE = "verifier.json"


class VerifierConfig(BaseModel):
    """What a verifier reads (see `reading_named`), of which generator, and how it asks.

    `generator_source` is the commit that was read, as `owner/model@COMMIT`, where the generator came from the hub. With
    `has_head` its score is a number from a head, trained by regression, and not the log-odds of yes. For
    `spatial_merge_size`, and for `statistics` of so many `tokens`, see `Connector`.

    Of a verifier that others published, `published_config` is what its config.json said. It may not be known of which
    generator it is, then `width` says what it reads, nor on which weights of that it was trained: None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: Architecture | None
    generator_fingerprint: str | None
    generator_source: str | None = None
    reads: ReadingName
    question: Annotated[str, AfterValidator(check_question)] = PUBLISHED_QUESTION
    spatial_merge_size: PositiveInt = 1
    statistics: StatisticsKind = "channel"
    tokens: PositiveInt | None = None
    width: PositiveInt | None = None
    has_head: bool = False
    calibration: Calibration | None = None
    published_config: dict[str, JsonValue] | None = None

    @classmethod
    def of(cls, generator: Generator, reads: str, **fields: Any) -> "VerifierConfig":
        """For a generator at hand."""
        return cls(
            generator=generator.architecture,
            generator_fingerprint=generator.fingerprint,
            generator_source=_commit_of(generator),
            reads=reads,
            **fields,
        )

    def new_connector(self, reading: Reading, embedding_width: int) -> Connector:
        """Untrained, for the tokens of a reading. Raises MismatchError where the generator has no such stage."""
        width = self.width if self.generator is None else reading.width(self.generator)
        assert width is not None, "a verifier of no known generator says its width"
        return Connector(width, embedding_width, self.spatial_merge_size, self.statistics, self.tokens or 1)

    def check(self, generator: Generator, verifier: str) -> None:
        """Raises MismatchError, naming both values, for a generator of another architecture."""
        for field in Architecture.model_fields if self.generator else ():
            expected, actual = getattr(self.generator, field), getattr(generator.architecture, field)
            if expected != actual:
                raise MismatchError(
                    f"verifier {verifier} reads a generator with {field} = {expected}, but {generator.name} has "
                    f"{field} = {actual}: use the verifier that was trained for it"
                )

    def doubts(self, generator: Generator, verifier: str) -> Iterator[str]:
        """Warnings about a generator of other weights than those it was trained on."""
        fingerprint, source = self.generator_fingerprint, self.generator_source
        if fingerprint not in (None, generator.fingerprint):
            yield (
                f"verifier {verifier} was trained on weights {fingerprint}, {generator.name} has "
                f"{generator.fingerprint}: its verdicts may not hold"
            )
        commit = _commit_of(generator)
        if source and commit and source != commit:
            yield f"verifier {verifier} was trained on {source}, this is {commit}: its verdicts may not hold"


def _commit_of(generator: Generator) -> str | None:
    """Of the repository that its transformer came from; None for a folder, and for a pipeline that was given."""
    weights = generator.sources[-1] if generator.sources else None
    return str(weights) if weights and weights.commit else None
