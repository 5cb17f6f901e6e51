"""From what a search found to the record of it that `result.json` holds."""

from forejudge.asked import Asked
from forejudge.generators.base import Generator
from forejudge.result import CandidateRecord, SearchRecord, Settings, SourceRecord, package_versions
from forejudge.search import Found
from forejudge.selection import passed
from forejudge.types import IMAGE
from forejudge.verifiers.base import Verifier


def search_record(
    asked: Asked, found: Found, settings: Settings, generator: Generator, verifier: Verifier
) -> SearchRecord:
    """With all that was asked for, found and used."""
    judged_at = max(verifier.reads)
    records = tuple(
        CandidateRecord(
            index=index,
            seed=asked.seeds[index],
            stage=str(IMAGE if index in found.images else judged_at),
            **vars(verdict),
        )
        for index, verdict in enumerate(found.verdicts)
    )
    winner = found.order[0]
    return SearchRecord(
        prompt=asked.prompt,
        candidates=records,
        winner=winner,
        passed=passed(found.verdicts[winner]),
        ended_by=found.ended_by,
        n=len(records),
        unused=found.drawn - len(records),
        timings=found.timings,
        settings=settings,
        sources=_sources(generator, verifier),
        versions=package_versions(),
    )


def _sources(generator: Generator, verifier: Verifier) -> tuple[SourceRecord, ...]:
    pipeline, *transformer = generator.sources or (None,)
    return (
        SourceRecord.of("generator", pipeline, generator.name, generator.fingerprint),
        *(SourceRecord.of("transformer", source, source.model) for source in transformer if source),
        SourceRecord.of("verifier", verifier.source, verifier.name, verifier.digest),
    )
