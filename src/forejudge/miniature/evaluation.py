"""The miniature's test: Best-of-N by a verifier, by a random choice and by a perfect judge, over its 600 test cases.

Every candidate is finished and judged by GenEval's rules, so that each chooser's pick among the first N is known.
Work is kept in a journal, one entry a case and seed, and goes on where it was stopped.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from forejudge.evaluation.description import Description
from forejudge.generators.base import Generator
from forejudge.journal import Journal
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.miniature.splits import TestCase
from forejudge.progress import Report, Stopwatch
from forejudge.training.groups import Group
from forejudge.types import IMAGE, Candidates
from forejudge.verifiers.base import Verifier


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
    verifiers: Mapping[str, Verifier],
    cases: list[TestCase],
    seeds: int,
    candidates: int,
    journal: Journal,
    report: Report,
) -> Outcomes:
    """Draw, finish and judge every candidate of every case; entries already in the journal are not drawn again."""
    wanted = [(case, seed) for seed in range(seeds) for case in cases]
    done = len(journal.entries)
    stopwatch = Stopwatch("evaluation", done, len(wanted))
    for number, (case, seed) in enumerate(wanted[done:], start=done + 1):
        journal.add(_entry(generator, verifiers, case, seed, candidates))
        report(stopwatch.at(number))
    return _outcomes(journal, cases, seeds, list(verifiers))


def work_digest(generator: Generator, verifiers: Mapping[str, Verifier], cases: list[TestCase], candidates: int) -> str:
    """What tells a journal's entries from those of any other work: 12 hexadecimal digits."""
    digest = hashlib.sha256(f"{generator.fingerprint}|{candidates}".encode())
    for case in cases:
        digest.update(f"|{case.description.prompt}|{case.repeat}".encode())
    for name, verifier in verifiers.items():
        digest.update(f"|{name}|{verifier.digest}".encode())
    return digest.hexdigest()[:12]


def _entry(
    generator: Generator, verifiers: Mapping[str, Verifier], case: TestCase, seed: int, count: int
) -> dict[str, object]:
    group = case.group(seed, count)
    stages = {stage for verifier in verifiers.values() for stage in verifier.reads} | {IMAGE}
    (candidates,) = group.draw(generator, stages, batch_size=count)
    verdicts = {name: verifier.judge(group.line.prompt, candidates) for name, verifier in verifiers.items()}
    return {
        "correct": correct_pictures(group, candidates),
        "score": {name: [verdict.score for verdict in row] for name, row in verdicts.items()},
        "probability": {name: [verdict.probability for verdict in row] for name, row in verdicts.items()},
    }


def correct_pictures(group: Group, candidates: Candidates) -> list[bool]:
    """Which of a group's finished pictures are right."""
    judged = MiniatureEvaluator()([group.line] * len(candidates), candidates.pictures)
    return [judgement.correct for judgement in judged]


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
