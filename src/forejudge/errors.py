"""What can go wrong, for users. One small tree:

ForejudgeError
├── InvalidRequest      a prompt, number or option that cannot be served   (also a ValueError)
├── CheckpointError     a folder or file that is missing, truncated or of the wrong kind
│   └── MismatchError   a verifier made for another generator, cut or shape
├── MissingExtra        an optional dependency is not installed; names the extra
├── OutputError         results cannot be written
└── CommandFailed       a command that was to judge pictures failed or gave no answer that can be read

Every message is one line: what was got, what was expected, what would work. The command line prints it
and exits non-zero; nothing already written is lost.
"""


class ForejudgeError(Exception):
    """Base of everything raised on purpose."""


class InvalidRequest(ForejudgeError, ValueError):
    """A prompt, number or option that cannot be served."""


class CheckpointError(ForejudgeError):
    """A model folder or file that is missing, truncated or of the wrong kind."""


class MismatchError(CheckpointError):
    """Two parts that were not made for each other; the message names both values."""


class MissingExtra(ForejudgeError, ImportError):
    """An optional dependency is absent."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'forejudge[{extra}]'")


class OutputError(ForejudgeError):
    """Results cannot be written (no permission, no space)."""


class CommandFailed(ForejudgeError):
    """A command that was to judge pictures failed, or gave no answer that can be read."""


def one_line(text: str, limit: int = 300) -> str:
    """Collapse white space, so that a message fits on one line of at most `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
