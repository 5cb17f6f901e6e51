"""A verdict in words, for tables and captions."""

from typing import TYPE_CHECKING

from forejudge.selection import passed
from forejudge.types import Verdict

if TYPE_CHECKING:
    from forejudge.result import CandidateRecord, SearchRecord


def answer(candidate: "CandidateRecord") -> str:
    """yes or no; empty where the verifier has no calibrated probability."""
    says_yes = passed(Verdict(candidate.score, probability=candidate.probability))
    return "" if says_yes is None else "yes" if says_yes else "no"


def chance(candidate: "CandidateRecord") -> str:
    """The probability of yes, or the bare score where there is none."""
    if candidate.probability is None:
        return f"score {candidate.score:.2f}"
    return f"p(yes) {candidate.probability:.2f}"


def ending(record: "SearchRecord") -> str:
    """Who ended the search, and how the same candidates are drawn again."""
    why = {
        "n": f"All {record.n} candidates asked for were judged.",
        "max_n": f"Ended by max-n after {record.n} candidates.",
        "budget_ms": f"Ended by budget-ms after {record.n} candidates; --n {record.n} repeats them.",
        "until": f"Ended by until at candidate {record.n - 1}; --n {record.n} repeats them.",
    }[record.ended_by]
    return why + (f" {record.unused} drawn beside the last one went unused." if record.unused else "")


def outcome(record: "SearchRecord") -> str:
    """The winner, and whether it passed."""
    winner = record.candidates[record.winner]
    text = f"Winner: candidate {winner.index}, seed {winner.seed}, {chance(winner)}."
    if record.passed is False:
        text += " No candidate passed: no verdict reached 0.5. The best of them is returned all the same."
    return text
