"""Read model files strictly: each problem becomes a one-line error that names the file, and libraries stay quiet."""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from warnings import catch_warnings, simplefilter
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from forejudge.errors import CheckpointError, ForejudgeError, OutputError
from forejudge.files import check_utf8, is_dir, is_file

Shape = tuple[int, ...]
_WEIGHTS = "model.safetensors"
_TORCH_WRITERS = ("PytorchStreamWriter", "inline_container")  # in messages of torch.save


@contextmanager
def checkpoint_errors(path: Path) -> Iterator[None]:
    """Turn any error of a library about a model file or folder into a one-line CheckpointError that names it."""
    try:
        yield
    except (ForejudgeError, MemoryError):
        raise
    except UnpicklingError:
        raise CheckpointError(
            f"{path} cannot be loaded: it asks for code to be run, or is not a file of torch.save; if you trust it, "
            "save its state_dict alone with torch.save and use that file"
        ) from None
    except Exception as error:  # libraries raise many types, tokenizers a bare Exception
        _raise_out_of_memory(error)
        file, problem = find_broken_file(path) or (path, first_line(error))
        raise CheckpointError(
            f"{file} cannot be loaded: it is missing, truncated or of another type ({problem})"
        ) from error


def _raise_out_of_memory(error: Exception) -> None:
    """Raise MemoryError for an error of a file that is whole, but that memory has no room for."""
    if os.strerror(errno.ENOMEM) in str(error):
        raise MemoryError from None


def find_broken_file(folder: Path) -> tuple[Path, str] | None:
    """Return the first file of a model's folder that cannot be read on its own, and why; libraries rarely say which."""
    for path in sorted(path for pattern in ("*", "*/*") for path in folder.glob(pattern) if is_file(path)):
        try:
            _read_whole(path)
        except (OSError, ValueError, RecursionError, SafetensorError) as error:
            return path, first_line(error)
    return None


def _read_whole(path: Path) -> None:
    if path.suffix == ".safetensors":
        with safe_open(path, "pt"):
            pass
    elif path.suffix in {".json", ".jinja", ".txt"}:
        text = path.read_text(encoding="utf-8")
        # A tokenizer's `model_max_length` is 10^30 where there is no limit.
        parse_int = int if path.name == "tokenizer_config.json" else _parse_int
        if path.suffix == ".json" and not isinstance(json.loads(text, parse_int=parse_int), dict):
            raise ValueError("it holds no JSON object")


def _parse_int(digits: str) -> int:
    """Parse a number that a tensor's size could be. Raises ValueError for a larger one."""
    if abs(number := int(digits)) >= 2**63:
        raise ValueError(f"{digits} is too large")
    return number


@contextmanager
def library_output_errors(folder: Path) -> Iterator[None]:
    """Turn errors of libraries that cannot write to a folder, on a full disk for instance, into an OutputError."""
    check_utf8(folder)
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(name in str(error) for name in _TORCH_WRITERS):
            raise
        raise OutputError(
            f"{folder} cannot be written ({first_line(error)}): free some space, or choose another --out; what was "
            "written before is kept"
        ) from None


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, at most 200 characters, or its type's name if it has none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence logs and progress bars of diffusers and transformers; they still raise what matters."""
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
    """Ignore FutureWarnings about names that all supported versions of transformers have."""
    with catch_warnings():
        simplefilter("ignore", FutureWarning)
        yield


def load_weights(module: nn.Module, path: Path, *, keep_dtypes: bool = False) -> None:
    """Fill a module from a safetensors file; see `assign_weights`."""
    check_safetensors(path)
    with checkpoint_errors(path):
        tensors = load_file(path)
    assign_weights(module, tensors, path, keep_dtypes=keep_dtypes)


def assign_weights(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, keep_dtypes: bool = False) -> None:
    """Fill a module with tensors read from `path`, cast to its dtypes unless `keep_dtypes`.

    Raises CheckpointError naming a missing, extra or misshapen tensor.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    actual = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    common = sorted(expected.keys() & actual.keys())
    mismatched_keys = [(name, actual[name], expected[name]) for name in common if actual[name] != expected[name]]
    check_loading_info(path, expected.keys() - actual.keys(), actual.keys() - expected.keys(), mismatched_keys)
    module.load_state_dict(tensors, assign=keep_dtypes)


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder saved by transformers: one safetensors file, or several with an index.

    Raises CheckpointError for a missing or truncated file.
    """
    index, names = folder / f"{_WEIGHTS}.index.json", [_WEIGHTS]
    if is_file(index):
        with checkpoint_errors(index):
            names = sorted(
                {Path(name).name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
            )
    tensors: dict[str, Tensor] = {}
    for path in (folder / name for name in names):
        check_safetensors(path)
        with checkpoint_errors(path):
            tensors |= load_file(path)
    return tensors


def weights_digest(folder: Path) -> str:
    """Hash the safetensors files of a folder to 16 hexadecimal digits. Raises CheckpointError if there are none."""
    files, digest = sorted(folder.glob("*.safetensors")), hashlib.sha256()
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors file: expected a model's folder")
    for path in files:
        with checkpoint_errors(path), path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def weights_name(name: str, folder: Path) -> str:
    """Return the name of weights in a result: the folder's name or the hub id, and their digest."""
    return f"{Path(name).resolve().name if is_dir(name) else name} {weights_digest(folder)}"


def read_pickle(path: Path) -> Any:
    """Read tensors in plain containers from a file of `torch.save`, memory-mapped, without running its code.

    Raises CheckpointError, also for a file that asks for code to be run.
    """
    with checkpoint_errors(path):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))


def check_safetensors(path: Path) -> None:
    """Raise CheckpointError for a safetensors file that is missing, truncated or of another format."""
    try:
        with safe_open(path, "pt"):
            return
    except Exception as error:  # OSError, and safetensors' own type
        _raise_out_of_memory(error)
        raise CheckpointError(
            f"{path} cannot be loaded: it is missing, truncated or no safetensors file ({first_line(error)}); delete "
            f"{path.resolve()} and get it again (for a hub id, run the same command again)"
        ) from None


def check_loading_info(
    path: Path,
    missing_keys: Iterable[str],
    unexpected_keys: Iterable[str],
    mismatched_keys: Iterable[tuple[str, Shape, Shape]],
    advice: str = "",
) -> None:
    """Raise CheckpointError naming the first wrong tensor, if any; shapes are those found and those expected."""
    problems = [f"tensor {name} is missing" for name in sorted(missing_keys)]
    problems += [f"tensor {name} is not part of the model" for name in sorted(unexpected_keys)]
    problems += [
        f"tensor {name} has shape {tuple(actual)}, expected {tuple(expected)}"
        for name, actual, expected in sorted(mismatched_keys)
    ]
    if problems:
        raise CheckpointError(f"{path}: {problems[0]}{advice}")
