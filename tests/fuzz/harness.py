"""Running one command in this process under limits, and judging how it ended."""

import io
import os
import random
import resource
import signal
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TypeVar

import torch

from forejudge.cli.app import main

SECONDS = 60  # of the process, after which a command hangs; it takes about one
WAITING_SECONDS = 600  # of the clock, for a command that waits; a busy machine takes far longer than SECONDS
MEMORY = 8 * 2**30  # beyond what the process has: what asks for more would fill the machine
SEED = 20261128
DEFAULT_CASES = 500

CaseT = TypeVar("CaseT")


class Hang(BaseException):
    """A command that did not end; no handler of errors catches it."""


@dataclass(frozen=True)
class Outcome:
    """Status and output of one command; `problem` is a traceback's last line, or how a hang looked."""

    status: int
    out: str
    err: str
    problem: str | None = None
    hung: bool = False

    @property
    def errors(self) -> list[str]:
        """The lines on stderr that say why the command failed."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]

    @property
    def warnings(self) -> list[str]:
        """The lines on stderr that warn."""
        return [line for line in self.err.splitlines() if line.startswith("warning: ")]

    @property
    def is_usage(self) -> bool:
        """True where typer refused the command line."""
        return self.status == 2 and self.err.lstrip().startswith("Usage: ")

    @property
    def verdict(self) -> str:
        """How the command ended: ok, refused, or one of three faults."""
        if self.hung:
            return "hang"
        if self.problem is not None or "Traceback (most recent call last)" in self.err:
            return "traceback"
        if self.status == 0:
            return "vague" if self.errors else "ok"
        return "refused" if self.is_usage or len(self.errors) == 1 else "vague"

    @property
    def said(self) -> str:
        """The end of what was said, on one line."""
        text = self.problem or (self.errors or self.warnings or self.err.splitlines() or [""])[-1]
        return ascii(text)[1:-1]


@dataclass(frozen=True)
class Finding:
    """A case that ended wrongly."""

    case: str
    verdict: str
    said: str


def sampled(cases: Sequence[CaseT]) -> list[CaseT]:
    """Return FUZZ_CASES of the cases (a number, or all), always the same ones."""
    wanted = os.environ.get("FUZZ_CASES", str(DEFAULT_CASES))
    if wanted == "all" or len(cases) <= int(wanted):
        return list(cases)
    return random.Random(SEED).sample(cases, int(wanted))


def table(title: str, verdicts: Counter[str], findings: Sequence[Finding]) -> str:
    """Return the counts, and a line for each finding."""
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    lines = [f"{finding.verdict:9} {finding.case}: {finding.said[:300]}" for finding in findings]
    return "\n".join([f"{title}: {verdicts.total()} cases, {counts}", *lines])


def run(arguments: Sequence[str], folder: Path) -> Outcome:
    """Run `forejudge` in a folder, with what stdout and stderr of a terminal in UTF-8 take."""
    out, err = io.BytesIO(), io.BytesIO()
    stdout = io.TextIOWrapper(out, encoding="utf-8", errors="strict", write_through=True)
    stderr = io.TextIOWrapper(err, encoding="utf-8", errors="backslashreplace", write_through=True)
    status, problem, hung = 0, None, False
    with _inside(folder), _limits(), redirect_stdout(stdout), redirect_stderr(stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            main(list(arguments))
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except Hang as error:
            hung, problem = True, _place(error)
        except BaseException as error:
            problem = f"{type(error).__name__}: {error} {_place(error)}"
    return Outcome(status, out.getvalue().decode("utf-8"), err.getvalue().decode("utf-8"), problem, hung)


def _place(error: BaseException) -> str:
    """Name the innermost place of the package in a traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/forejudge/" in frame.filename]
    return f"[{Path(frames[-1].filename).name}:{frames[-1].lineno} {frames[-1].name}]" if frames else ""


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before, environment = Path.cwd(), dict(os.environ)
    os.chdir(folder)
    os.environ |= {"XDG_CACHE_HOME": str(folder.parent / "cache"), "HF_HUB_OFFLINE": "1", "COLUMNS": "300"}
    torch.manual_seed(0)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)


@contextmanager
def _limits() -> Iterator[None]:
    """Limit time and memory of what runs inside."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Hang

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (_data_bytes() + MEMORY, hard))
    handlers = {number: signal.signal(number, end) for number in (signal.SIGALRM, signal.SIGPROF)}
    # Again and again: what catches everything catches the first.
    signal.setitimer(signal.ITIMER_PROF, SECONDS, 1)
    signal.setitimer(signal.ITIMER_REAL, WAITING_SECONDS, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """Return what the process has of the memory that RLIMIT_DATA counts."""
    pages = int(Path("/proc/self/statm").read_text().split()[5]) if sys.platform == "linux" else 0
    return pages * resource.getpagesize()


def judge_all(
    title: str, cases: Sequence[CaseT], judge: Callable[[CaseT], tuple[str, Finding | None]]
) -> list[Finding]:
    """Judge every case, and print the counts and the findings."""
    verdicts: Counter[str] = Counter()
    findings = []
    for case in cases:
        verdict, finding = judge(case)
        verdicts[verdict] += 1
        findings += [finding] if finding else []
    print(f"\n{table(title, verdicts, findings)}")
    return findings
