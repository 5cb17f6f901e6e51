"""From verdicts to a winner. Pure functions."""

from collections.abc import Sequence

from forejudge.types import Verdict

PASSES = 0.5  # a candidate passes when its calibrated probability reaches this


def order_by_score(verdicts: Sequence[Verdict]) -> tuple[int, ...]:
    """Candidate indices from best to worst; of equal scores the one drawn first stands first."""
    return tuple(sorted(range(len(verdicts)), key=lambda index: (-verdicts[index].score, index)))


def first_reaching(verdicts: Sequence[Verdict], probability: float) -> int | None:
    """The first index whose calibrated probability reaches `probability`, if any."""
    for index, verdict in enumerate(verdicts):
        if verdict.probability is not None and verdict.probability >= probability:
            return index
    return None


def passed(verdict: Verdict) -> bool | None:
    """Whether a verdict says yes; None where the verifier has no calibrated probability."""
    return None if verdict.probability is None else verdict.probability >= PASSES
