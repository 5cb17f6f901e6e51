"""Every file that a command reads, damaged in every way: refused or replaced by name, or without influence.

FUZZ_CASES=all runs every case instead of 500.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.fuzz.damage import damage_file, damages
from tests.fuzz.harness import Finding, Outcome, judge_all, run, sampled
from tests.fuzz.snapshot import Contents, contents, difference, lines
from tests.fuzz.world import ALIGN, CAPTION, COMPARED, EVALUATION, IMPORT, LABEL, MADE_IN, PROMPT, TINY, VERIFY

GENERATE = ("generate", PROMPT, *TINY, "--n", "2", "--out", "out", "--json")
COLLECTED = ("--prompts", "few.jsonl", "--candidates", "64", "--out")
SCORE = ("geneval", "score", "--json", "--device", "cpu")
CLIPSCORE = ("--generator", "generator", "--verifier", "clipscore:scoring_clip", "--device", "cpu")
DETECTED = ("photos", "--evaluator", "geneval", "--detector", "detector", "--color-model", "clip")


@dataclass(frozen=True)
class Reader:
    """A command that reads files below some of the world's folders, `damaged`; it needs `others` too."""

    name: str
    arguments: tuple[str, ...]
    damaged: tuple[str, ...]
    others: tuple[str, ...] = ()


TRAINING_INPUTS = ("generator", "language_model")
READERS = [
    Reader("generate", GENERATE, ("verifier", "generator")),
    Reader(
        "generate by clip",
        ("generate", PROMPT, *CLIPSCORE, "--n", "2", "--out", "out"),
        ("scoring_clip",),
        ("generator",),
    ),
    Reader("show", ("verifier", "show", "trained"), ("trained",)),
    Reader("export", ("verifier", "export", "imported", "out"), ("imported",), ("sana",)),
    Reader("import", (*IMPORT, "out"), ("published", "mean.pt", "variance.pt", "sana")),
    Reader("align", (*ALIGN, "--out", "out"), ("captions", "held_captions"), TRAINING_INPUTS),
    Reader("verify", (*VERIFY, "--out", "out"), ("labels", "held_labels", "language_model"), TRAINING_INPUTS),
    Reader(
        "verify on",
        (*VERIFY, "--aligned", "aligned", "--out", "out"),
        ("aligned",),
        (*TRAINING_INPUTS, "labels", "held_labels"),
    ),
    Reader("verify again", (*VERIFY, "--out", "run"), ("run",), (*TRAINING_INPUTS, "labels", "held_labels")),
    Reader("verified", (*VERIFY, "--out", "trained"), ("trained",), (*TRAINING_INPUTS, "labels", "held_labels")),
    Reader("label again", (*LABEL, *COLLECTED, "labels"), ("labels", "few.jsonl"), ("generator",)),
    Reader("caption again", (*CAPTION, *COLLECTED, "captions"), ("captions", "few.jsonl"), ("generator",)),
    Reader(
        "eval again",
        ("eval", *EVALUATION, *COMPARED, "--controls", "--record-for", "simulate", "--out", "evaluated"),
        ("evaluated", "few.jsonl"),
        ("generator", "verifier"),
    ),
    Reader("report", ("report", "evaluated", "--out", "out", "--study", "study.json"), ("evaluated", "study.json")),
    Reader("merge", ("eval", "merge", "part1", "part2"), ("part1", "part2")),
    Reader(
        "generate again",
        ("generate", *TINY, "--prompts", "few.jsonl", "--n", "2", "--out", "images", "--json"),
        ("images", "few.jsonl"),
        ("generator", "verifier"),
    ),
    Reader("score", (*SCORE, "images", "--evaluator", "geneval-miniature"), ("images",)),
    Reader("score again", (*SCORE, "scored", "--evaluator", "geneval-miniature"), ("scored",)),
    Reader("score by geneval", (*SCORE, *DETECTED), ("detector", "clip"), ("photos",)),
    Reader("convert", ("geneval", "convert-detector", "detector.pth", "out"), ("detector.pth",)),
]
# Nothing tells a changed number in weights that others wrote without checksums.
_WEIGHTS = {".safetensors", ".pt"}
# No text is generated, so that a damaged generation_config.json is copied; and the repository may change meanwhile.
_UNREAD = re.compile(r"generation_config\.json|/provenance/commit$")


@dataclass(frozen=True)
class Case:
    """One damage of one file, and the command that reads it."""

    reader: Reader
    file: str
    damage: str

    def __str__(self) -> str:
        return f"{self.reader.name}, {self.file}, {self.damage}"


@dataclass(frozen=True)
class Reference:
    """Output of a command in the undamaged world, and the places that differ from run to run."""

    contents: Contents
    volatile: frozenset[str]


def all_cases(world: Path) -> Iterator[Case]:
    """Every file of every reader with every damage."""
    for reader in READERS:
        for name in reader.damaged:
            paths = [path for path in sorted((world / name).rglob("*")) if path.is_file()] or [world / name]
            for path in (path for path in paths if path.stat().st_size):
                for damage in damages(path):
                    if reader.name == "import" and path.suffix in _WEIGHTS and damage.startswith("flip"):
                        continue
                    yield Case(reader, path.relative_to(world).as_posix(), damage)


@dataclass(frozen=True)
class Laboratory:
    """Cases tried in fresh copies of what they need, in the folder that the world was made in."""

    world: Path

    def copy(self, reader: Reader) -> Path:
        """Return a folder with what a reader needs, and nothing else."""
        here = self.world.parent / MADE_IN
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        for name in dict.fromkeys((*reader.damaged, *reader.others)):
            source = self.world / name
            shutil.copytree(source, here / name) if source.is_dir() else shutil.copy(source, here / name)
        return here

    def judge(self, case: Case) -> tuple[str, Finding | None]:
        """Damage the file, run the command and judge what it says and leaves."""
        reference = self.reference(case.reader)  # made in the same folder
        here = self.copy(case.reader)
        damage_file(here / case.file, case.damage)
        outcome = run(case.reader.arguments, here)
        verdict, said = self._verdict(case, outcome, here, reference)
        fine = verdict in {"same", "warned", "refused"}
        return verdict, None if fine else Finding(str(case), verdict, said)

    def _verdict(self, case: Case, outcome: Outcome, here: Path, reference: Reference) -> tuple[str, str]:
        left_out = [line for line in outcome.err.splitlines() if line.startswith("left out: ")]
        if outcome.verdict == "refused" or (outcome.verdict == "vague" and left_out):
            named = _names([*outcome.errors, *left_out], case.file)
            return ("refused" if named else "vague"), outcome.said
        if outcome.verdict != "ok":
            return outcome.verdict, outcome.said
        # Weights that others wrote have no checksums: a warning names the model.
        if _names(outcome.warnings, case.file) or _names(outcome.warnings, case.file.partition("/")[0]):
            return "warned", outcome.said
        now = contents(here) | lines(outcome.out, here)
        places = {
            place
            for place in difference(now, reference.contents) - reference.volatile
            if place.partition(":")[0] != case.file and not _UNREAD.search(place)
        }
        return ("silent" if places else "same"), f"{len(places)} places differ: {sorted(places)[:3]} {outcome.said}"

    @cache  # noqa: B019 - one laboratory for all tests
    def reference(self, reader: Reader) -> Reference:
        """Run a reader twice on undamaged files."""
        made = []
        for _ in range(2):
            here = self.copy(reader)
            outcome = run(reader.arguments, here)
            assert outcome.verdict == "ok", (reader, outcome)
            made.append(contents(here) | lines(outcome.out, here))
        return Reference(made[0], frozenset(difference(*made)))


def _names(texts: list[str], file: str) -> bool:
    """Return whether a line names the file, or the folder of a model's part that holds it."""
    path = Path(file)
    folder = path.parent.name
    named = [path.name, *([f"{folder} "] if folder else []), *(["other prompts"] if "few.jsonl" in file else [])]
    return any(name in text for text in texts for name in named)


@pytest.mark.slow
def test_no_damaged_file_goes_unnoticed(world: Path) -> None:
    laboratory = Laboratory(world)
    assert judge_all("damaged files", sampled(list(all_cases(world))), laboratory.judge) == []
