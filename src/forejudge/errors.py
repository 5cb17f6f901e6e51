"""Exceptions that users may catch, and the one-line messages they carry.

ForejudgeError
├── InvalidRequest      a prompt, number or option that cannot be served (also a ValueError)
├── CheckpointError     a model folder or file that is missing, truncated or of the wrong kind
│   └── MismatchError   a verifier made for another generator, cut or shape
├── MissingExtra        an optional dependency that is not installed (also an ImportError)
├── BrokenImage         an image whose values are not finite (NaN or infinity)
├── OutputError         results that cannot be written
└── CommandFailed       an evaluator command that failed or gave an unreadable answer

Every message is one line: the problem, the value received, what is expected, what to do. The command line prints it
and exits with a non-zero status; files already written stay.
"""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class ForejudgeError(Exception):
    """Base class of all exceptions raised on purpose."""


class InvalidRequest(ForejudgeError, ValueError):
    """A prompt, number or option that cannot be served."""


class CheckpointError(ForejudgeError):
    """A model folder or file that is missing, truncated or of the wrong kind."""


class MismatchError(CheckpointError):
    """Two parts that were not made for each other; the message names both values."""


class MissingExtra(ForejudgeError, ImportError):
    """An optional dependency that is not installed; the message names the extra to install."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'forejudge[{extra}]'")


class BrokenImage(ForejudgeError):
    """An image, or the latents it is decoded from, with values that are not finite; the message names its seed."""

    def __init__(self, seed: int, subject: str = "") -> None:
        self.seed = seed
        super().__init__(
            f"{subject}the image of seed {seed} has values that are not finite (NaN or infinity): use dtype bfloat16 "
            "or float32, or check the generator's weights"
        )


class OutputError(ForejudgeError):
    """Results that cannot be written: no permission, no space, or a file in the way."""


class CommandFailed(ForejudgeError):
    """An evaluator command that failed or gave an unreadable answer."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C."""


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LONG_WORD = re.compile(r"(\S{150})\S{50,}(\S{50})")


def printable(text: str) -> str:
    """Escape characters that steer a terminal or reorder a line, as JSON does."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def message_line(text: str) -> str:
    """Return a message on one printable line; words of over 250 characters are cut in the middle."""
    return _LONG_WORD.sub(r"\1…\2", printable(" ".join(text.split())))


def one_line(text: str, limit: int = 300) -> str:
    """Collapse white space and cut `text` to at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def validation_message(error: "ValidationError") -> str:
    """Return "field = value: problem" for the first problem of a pydantic error, on one line."""
    return validation_messages(error)[0]


def validation_messages(error: "ValidationError") -> list[str]:
    """Return "field = value: problem" for every problem of a pydantic error, on one line each."""
    messages = []
    for found in error.errors():
        field, value, problem = ".".join(map(str, found["loc"])), found.get("input"), found["msg"]
        got = f" = {value!r}" if field and isinstance(value, str | int | float | bool | None) else ""
        problem = problem.removeprefix("Value error, ")
        messages.append(one_line(f"{field}{got}: {problem}" if field else problem))
    return messages
