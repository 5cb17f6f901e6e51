"""Calls into the libraries that read models: without their chatter, and errors as one line that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from warnings import catch_warnings, simplefilter

from forejudge.errors import CheckpointError, ForejudgeError


@contextmanager
def named_file(path: Path) -> Iterator[None]:
    """Turn whatever libraries raise about a model file or folder into one line that names it."""
    try:
        yield
    except ForejudgeError:
        raise
    except UnpicklingError:
        raise CheckpointError(
            f"{path} cannot be loaded, it asks for code to be run or is no such file: where you trust it, save its "
            "state_dict alone with torch.save, and take that"
        ) from None
    except Exception as error:  # of many kinds; tokenizers raises a bare Exception
        raise CheckpointError(
            f"{path} cannot be loaded, it is missing, truncated or of another kind ({first_line(error)})"
        ) from error


def first_line(error: Exception) -> str:
    """What an error says, short enough to be part of another line; its kind where it says nothing."""
    words = str(error).strip().splitlines() or [type(error).__name__]
    return words[0][:200]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep diffusers and transformers from logging and drawing bars: what matters, they raise or report."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries: list[Any] = [diffusers_logging, transformers_logging]
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity(library.CRITICAL)
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()


@contextmanager
def renamed_in_transformers() -> Iterator[None]:
    """For names that every version that we allow has, and the newest ones warn about."""
    with catch_warnings():
        simplefilter("ignore", FutureWarning)
        yield
