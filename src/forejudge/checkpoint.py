"""Reading model folders: every problem becomes one line that names the file and what is wrong with it."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from warnings import catch_warnings, simplefilter
from zipfile import is_zipfile

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from forejudge.errors import CheckpointError, ForejudgeError

# FOLDED: Calls into the libraries that read models: without their chatter, and errors as one line that names the file.


@contextmanager
def checkpoint_errors(path: Path) -> Iterator[None]:
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
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep diffusers and transformers from logging and drawing bars: what matters, they raise or report."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries: list[Any] = [diffusers_logging, transformers_logging]
    previous = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity(library.CRITICAL)
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, progress_bar_enabled) in zip(libraries, previous, strict=True):
            library.set_verbosity(verbosity)
            if progress_bar_enabled:
                library.enable_progress_bar()


@contextmanager
def ignore_transformers_deprecations() -> Iterator[None]:
    """For names that every version that we allow has, and the newest ones warn about."""
    with catch_warnings():
        simplefilter("ignore", FutureWarning)
        yield


Shape = tuple[int, ...]
_WEIGHTS = "model.safetensors"


def load_weights(module: nn.Module, path: Path, *, keep_dtypes: bool = False) -> None:
    """`assign_weights` from a safetensors file."""
    check_safetensors(path)
    with checkpoint_errors(path):
        tensors = load_file(path)
    assign_weights(module, tensors, path, keep_dtypes=keep_dtypes)


def assign_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, keep_dtypes: bool = False) -> None:
    """Fill a module with tensors that come from `path`, in its own dtypes or, if they are kept, in theirs.

    Raises CheckpointError naming a missing, extra or misshapen tensor.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    actual = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    common = sorted(expected.keys() & actual.keys())
    mismatched_keys = [(name, actual[name], expected[name]) for name in common if actual[name] != expected[name]]
    check_loading_info(path, expected.keys() - actual.keys(), actual.keys() - expected.keys(), mismatched_keys)
    module.load_state_dict(tensors, assign=keep_dtypes)


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model's folder as transformers saves it: in one safetensors file, or in several with an index.

    Raises CheckpointError for a file that is missing or truncated.
    """
    index, names = folder / f"{_WEIGHTS}.index.json", [_WEIGHTS]
    if index.is_file():
        with checkpoint_errors(index):
            names = sorted({Path(name).name for name in json.loads(index.read_text())["weight_map"].values()})
    tensors: dict[str, Tensor] = {}
    for path in (folder / name for name in names):
        check_safetensors(path)
        with checkpoint_errors(path):
            tensors |= load_file(path)
    return tensors


def bfloat16_bytes(weight: Tensor) -> bytes:
    """A tensor rounded to bfloat16, so that the dtype in use does not matter to a hash of it."""
    return weight.detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes()


def weights_digest(folder: Path) -> str:
    """16 hexadecimal digits that tell the weights of one model's folder from all others.

    Raises CheckpointError for a folder without safetensors.
    """
    files, digest = sorted(folder.glob("*.safetensors")), hashlib.sha256()
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors file")
    for path in files:
        with checkpoint_errors(path), path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def weights_name(name: str, folder: Path) -> str:
    """What a result calls weights: the last part of a path or all of a hub id, and their digest."""
    return f"{Path(name).resolve().name if Path(name).is_dir() else name} {weights_digest(folder)}"


def read_pickle(path: Path) -> Any:
    """What `torch.save` wrote: tensors in plain containers, mapped and not copied. No code of it is run.

    Raises CheckpointError, for one that asks for code as well.
    """
    with checkpoint_errors(path):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))


def check_safetensors(path: Path) -> None:
    """Raises CheckpointError for a safetensors file that is not as long as its header says, or is none."""
    try:
        with safe_open(path, "pt"):
            return
    except Exception as error:  # of many kinds, one of them of its own
        raise CheckpointError(
            f"{path} cannot be loaded, it is missing, truncated or no safetensors file ({first_line(error)}): delete "
            f"{path.resolve()} and get it again, which for a hub id the same command does"
        ) from None


def check_loading_info(
    path: Path,
    missing_keys: Iterable[str],
    unexpected_keys: Iterable[str],
    mismatched_keys: Iterable[tuple[str, Shape, Shape]],
) -> None:
    """Raises CheckpointError naming the first tensor that is wrong, if any; shapes are those found and expected."""
    problems = [f"tensor {name} is missing" for name in sorted(missing_keys)]
    problems += [f"tensor {name} is not part of the model" for name in sorted(unexpected_keys)]
    problems += [
        f"tensor {name} has shape {tuple(actual)}, expected {tuple(expected)}"
        for name, actual, expected in sorted(mismatched_keys)
    ]
    if problems:
        raise CheckpointError(f"{path}: {problems[0]}")
