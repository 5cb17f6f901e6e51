"""Every option of every command with silly values: refused on one line, or served, and nothing else touched.

FUZZ_CASES=all runs every case instead of 500.
"""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from forejudge.cli.app import COMMANDS, _app
from forejudge.training.presets import load_preset
from tests.fuzz.harness import Finding, judge_all, run, sampled
from tests.fuzz.snapshot import unreadable
from tests.fuzz.world import EVALUATION, IMPORT, PROMPT, TINY

OUT = ("--out", "out")
COLLECT = ("--prompts", "few.jsonl", "--generator", "generator", "--device", "cpu", "--candidates", "1", *OUT)
QUICK = (
    "--generator",
    "generator",
    "--device",
    "cpu",
    "--set",
    "language_model=language_model",
    "--set",
    "reads=hidden:2",
)
TRAIN = (*QUICK, "--set", "steps=1", "--set", "batch_size=4", "--set", "warmup_steps=0", *OUT)
SCORED = ("images", "--evaluator", "geneval-miniature")
BASES: dict[str, tuple[tuple[str, ...], ...]] = {
    "generate": ((PROMPT, *TINY, "--n", "1", *OUT), ("--prompts", "few.txt", *TINY, "--n", "1", *OUT)),
    "models": ((),),
    "profile": ((*TINY, "--n", "1", "--rounds", "1", "--strategy", "forejudge", *OUT),),
    "prompts geneval": (("--objects", "objects.txt", "--count", "3", "--out", "new.jsonl"),),
    "prompts miniature": (("--split", "training", "--count", "3", "--out", "new.jsonl"),),
    "label": ((*COLLECT, "--evaluator", "geneval-miniature"),),
    "caption": ((*COLLECT, "--captioner", "miniature"),),
    "train align": (("--captions", "captions", "--validation", "held_captions", *TRAIN),),
    "train verify": (("--labels", "labels", "--validation", "held_labels", *TRAIN),),
    "verifier show": (("verifier",),),
    "verifier import": ((*IMPORT[2:], "out"),),
    "verifier export": (("imported", "out"),),
    "eval": (("--n", "1", "--seeds", "1", "--budget-ms", "60000", *EVALUATION, *OUT),),
    "eval merge": (("part1", "part2"),),
    "study": (
        (
            *("loss", "--values", "focal,regression", "--labels", "labels", "--validation", "held_labels"),
            *("--steps", "1", "--training-seeds", "1", *QUICK, *OUT),
        ),
    ),
    "simulate": (("evaluated", "--n", "1", "--until", "0.9", "--price", "0.01", *OUT),),
    "report": (("evaluated", *OUT),),
    "geneval convert-detector": (("detector.pth", "out"),),
    "geneval score": (SCORED, ("photos", "--detector", "detector", "--color-model", "clip", "--device", "cpu")),
}
"""Small valid command lines of every command; each option is replaced in them, or added to them."""

HUGE = "99999999999999999999999"
TEXTS = [
    "",
    " ",
    "x" * 5000,
    "a\0b",
    "two\nlines",
    "\x1b[31mred\x07",
    "[/INST] [red]",
    "caf\udce9",
    "\u202etfel ot thgir",
    'it\'s "so" here/too',
    "..",
    "https://example.com/x",
    "hidden:0",
    "hidden:1",
    "math:pi",
    "latent",
    "clipscore:nowhere",
    "~stranger/x",
    "1,2,,3",
    "a,b",
    "{}",
    "[1",
]
NUMBERS = [
    "-1",
    "0",
    "1",
    HUGE,
    f"-{HUGE}",
    "1000000000",
    "nan",
    "inf",
    "-inf",
    "1e308",
    "-1e308",
    "1.5",
    "three",
    "1/0",
]
PATHS = [
    "few.jsonl",
    "few.txt",
    "empty",
    "wrong.json",
    "device",
    "/proc/x/y",
    "dangling",
    "loop",
    "generator",
    "labels",
]
VALUES = [*TEXTS, *NUMBERS, *PATHS]
SET_VALUES = [
    "",
    "-1",
    "0",
    HUGE,
    "1e308",
    "NaN",
    "Infinity",
    "true",
    "null",
    "[]",
    "{}",
    "three",
    "x" * 5000,
    "caf\udce9",
    "\0",
]
NOT_TRIED = {"--compile"}  # takes minutes


@dataclass(frozen=True)
class Case:
    """A command line with one option changed."""

    command: str
    option: str
    value: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        value = self.value if len(self.value) < 60 else f"{self.value[0]} * {len(self.value)}"
        return f"{self.command}, {self.option}, {value!a}"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command of the command line, by its words."""
    for name in COMMANDS:
        yield from _below(name, get_command(_app([name])).commands[name])  # type: ignore[attr-defined]


def _below(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "list_commands"):
        yield name, command
        return
    context = command.make_context(name, [], resilient_parsing=True)
    for word in command.list_commands(context):
        yield from _below(f"{name} {word}", command.get_command(context, word))
    if command.invoke_without_command:
        yield name, command


def all_cases() -> Iterator[Case]:
    """Every option of every command with every value."""
    for name, command in commands():
        for base in BASES[name]:
            for parameter in command.params:
                for value in _values(parameter):
                    arguments = _replaced(command, base, parameter, value)
                    yield Case(name, max(parameter.opts, key=len), value, (*name.split(), *arguments))


def _values(parameter: Any) -> Sequence[str]:
    if "--set" in parameter.opts:
        fields = [*type(load_preset("miniature").verify).model_fields, "loss.kind", "lora.rank", "unknown"]
        return [*VALUES, *(f"{field}={value}" for field in fields for value in SET_VALUES)]
    if NOT_TRIED & set(parameter.opts):
        return []
    return ["given twice"] if _is_flag(parameter) else [*VALUES, "given twice"]


def _is_flag(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", False))


def _replaced(command: Any, base: Sequence[str], parameter: Any, value: str) -> list[str]:
    """Return the command line with one parameter changed; arguments stand in their order, before options."""
    flags = {option: each for each in command.params for option in each.opts if option.startswith("-")}
    positional, options = _parsed(base, flags)
    count = max(parameter.nargs, 1)
    if parameter.param_type_name == "argument":
        index = [each.name for each in command.params if each.param_type_name == "argument"].index(parameter.name)
        positional = [*positional[:index], value, *positional[index + 1 :]]
        # What starts with a dash is a value all the same.
        return [*(word for option in options for word in option), "--", *positional]
    option = max(parameter.opts, key=len)
    valid = [given for given in options if given[0] == option]
    if value == "given twice":
        changed = [*options, *(valid or [[option] if _is_flag(parameter) else [option, *["1"] * count]])]
    elif getattr(parameter, "multiple", False):
        changed = [*options, [option, *[value] * count]]
    else:
        changed = [*(given for given in options if given[0] != option), [option, *[value] * count]]
    if parameter.name == "prompts" and positional:
        positional = []
    return [*(word for given in changed for word in given), *(["--", *positional] if positional else [])]


def _parsed(base: Sequence[str], flags: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    words, positional, options = list(base), [], []
    while words:
        word = words.pop(0)
        if word not in flags:
            positional.append(word)
            continue
        count = 0 if _is_flag(flags[word]) else max(flags[word].nargs, 1)
        options.append([word, *words[:count]])
        del words[:count]
    return positional, options


@dataclass(frozen=True)
class Laboratory:
    """A folder to try cases in, each among hard links to the world's files."""

    world: Path
    folder: Path

    def copy(self) -> Path:
        """Return a folder that looks like the world, with some odd files."""
        shutil.rmtree(self.folder, ignore_errors=True)
        here = self.folder / "here"
        shutil.copytree(self.world, here, copy_function=os.link)
        (here / "empty").mkdir()
        (here / "wrong.json").write_text('{"a": [1, null], "prompt": 3}')
        (here / "dangling").symlink_to("nowhere")
        (here / "loop").symlink_to("loop")
        if os.geteuid() == 0:  # a second /dev/null, which a fault may replace
            os.mknod(here / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        return here

    def judge(self, case: Case) -> tuple[str, Finding | None]:
        """Run the command; judge what it says, what it leaves, and that nothing else changed."""
        here = self.copy()
        before = _states(self.folder)
        outcome = run(case.arguments, here)
        verdict, said = outcome.verdict, outcome.said
        if verdict in {"ok", "refused"}:
            after = _states(self.folder)
            touched = sorted(name for name, state in before.items() if after.get(name) != state)
            new = [self.folder / name for name in after.keys() - before.keys()]
            problems = [problem for path in new if path.is_file() for problem in [unreadable(path)] if problem]
            if touched and not _may_change(case, touched):
                verdict, said = "touched", f"{touched[:3]} {said}"
            elif problems:
                verdict, said = "unreadable", f"{problems[0]} {said}"
            elif verdict == "ok" and not new and not outcome.out:
                verdict = "nothing"
            elif verdict == "refused" and [path for path in new if path.is_file() and "/cache/" not in str(path)]:
                verdict, said = "left", f"{sorted(path.name for path in new)[:4]} {said}"
        fine = verdict in {"ok", "refused"}
        return verdict, None if fine else Finding(str(case), verdict, said)


def _states(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return what identifies each file below a folder and tells that it was not written to."""
    states: dict[str, tuple[int, ...]] = {}
    for path in folder.rglob("*"):
        found = path.lstat()
        changed = 0 if stat.S_ISDIR(found.st_mode) else found.st_mtime_ns
        inode = 0 if stat.S_ISDIR(found.st_mode) else found.st_ino
        states[str(path.relative_to(folder))] = (inode, changed, stat.S_IFMT(found.st_mode))
    return states


def _may_change(case: Case, touched: Sequence[str]) -> bool:
    """Return whether the user named the file to write to."""
    named = [word for word in case.arguments if word and f"here/{word}" in touched]
    return len(named) >= len(touched)


@pytest.mark.slow
def test_every_command_has_a_command_line() -> None:
    assert {name for name, _ in commands()} == BASES.keys()


@pytest.mark.slow
def test_no_option_breaks_a_command(world: Path) -> None:
    laboratory = Laboratory(world, world.parent / "options")
    assert judge_all("options", sampled(list(all_cases())), laboratory.judge) == []
