"""The miniature's test: Best-of-N by a verifier, by a random choice and by a perfect judge, over its 600 test cases.

Every candidate is finished and judged by GenEval's rules, so that each chooser's pick among the first N is known.
Work is kept in a journal, one entry a case and seed, and goes on where it was stopped.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from forejudge.generators.base import Generator
from forejudge.journal import Journal
from forejudge.miniature.description import Description
from forejudge.miniature.labels import Group, draw_candidates, label
from forejudge.miniature.splits import TestCase, split_seed
from forejudge.miniature.training_loop import Progress
from forejudge.verifiers.hidden_state import HiddenStateVerifier


@dataclass(frozen=True)
class Outcomes:
    """What was drawn for C cases with S seeds and N candidates each.

    `correct_CSN` says whether each finished picture is right, `score_CSN` and `probability_CSN` what each verifier
    said of it, by name.
    """

    descriptions: list[Description]
    correct_CSN: np.ndarray
    score_CSN: dict[str, np.ndarray]
    probability_CSN: dict[str, np.ndarray]


def draw_and_judge_cases(
    generator: Generator,
    verifiers: dict[str, HiddenStateVerifier],
    cases: list[TestCase],
    seeds: int,
    candidates: int,
    journal: Journal,
    report: Callable[[Progress], None],
) -> Outcomes:
    """Draw, finish and judge every candidate of every case; entries already in the journal are not drawn again."""
    wanted = [(case, seed) for seed in range(seeds) for case in cases]
    done, started = len(journal.entries), time.monotonic()
    for number, (case, seed) in enumerate(wanted[done:], start=done + 1):
        journal.add(_entry(generator, verifiers, case, seed, candidates))
        left = (time.monotonic() - started) / (number - done) * (len(wanted) - number)
        report(Progress("evaluation", number, len(wanted), left))
    return _outcomes(journal, cases, seeds, list(verifiers))


def _entry(
    generator: Generator,
    verifiers: dict[str, HiddenStateVerifier],
    case: TestCase,
    seed: int,
    count: int,
) -> dict[str, object]:
    group = Group(case.description, case.repeat, split_seed("test", seed))
    cuts = sorted({verifier.config.num_prefix_blocks for verifier in verifiers.values()})
    candidates = draw_candidates(generator, group, group.seeds(count), cuts)
    verdicts = {name: v.judge(group.description.prompt, candidates) for name, v in verifiers.items()}
    return {
        "correct": [row.correct for row in label(group, candidates)],
        "score": {name: [verdict.score for verdict in row] for name, row in verdicts.items()},
        "probability": {name: [verdict.probability for verdict in row] for name, row in verdicts.items()},
    }


def _outcomes(journal: Journal, cases: list[TestCase], seeds: int, names: list[str]) -> Outcomes:
    def by_case(values: list[object], kind: type) -> np.ndarray:
        """Entries in the order of work (seed, case) to an array (C, S, N)."""
        return np.array(values, dtype=kind).reshape(seeds, len(cases), -1).swapaxes(0, 1)

    entries = journal.entries[: seeds * len(cases)]
    return Outcomes(
        descriptions=[case.description for case in cases],
        correct_CSN=by_case([entry["correct"] for entry in entries], bool),
        score_CSN={name: by_case([entry["score"][name] for entry in entries], float) for name in names},
        probability_CSN={name: by_case([entry["probability"][name] for entry in entries], float) for name in names},
    )
