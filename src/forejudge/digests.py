"""Digests that identify weights, and the checksums beside weights that we write.

    checksums.json      the SHA-256 of weights, configs and tokenizers in a folder and its subfolders

Digests of tensors do not depend on names of files, on the folder or, for weights that bfloat16 or float32 hold, on the
dtype in use. Those of files that were seen before come from the user's cache.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import torch
from pydantic import RootModel
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from forejudge.config_files import read_config
from forejudge.errors import CheckpointError, OutputError
from forejudge.files import is_file, user_cache, write_json, write_text

CHECKSUMS_FILE = "checksums.json"
COMPANIONS = ("README.md", "metrics.json", "recipe.json", "trained_on.json")
"""Files that training writes beside a verifier's weights, and that decide no verdict."""
CHECKPOINTS = "checkpoints"  # folder of a training that is about to end; checkpoints have seals of their own
SKIP_VARIABLE = "FOREJUDGE_SKIP_CHECKSUMS"
PROBE = "A photo of three red circles above 12 blue squares, left of the dog's caf\u00e9!"
"""Prompt that tokenizers are compared by, instead of their vocabularies, which are large."""
_DEFINITION = "1"  # of the digest of tensors; another one must not find digests of this one in the cache
_CHECKED_SUFFIXES = {".safetensors", ".json", ".jinja", ".txt", ".model"}
_PARALLEL_BYTES = 2**28  # from which on threads save more time than they take


class FileChecksums(RootModel[dict[str, str]]):
    """SHA-256 of files by path: content of CHECKSUMS_FILE, and of the seal of a training's checkpoint."""


def tensors_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash named tensors, rounded to bfloat16, to 64 hexadecimal digits.

    A tensor on the meta device has no values: its shape stands for them.
    """
    ordered = sorted(tensors, key=lambda named: named[0])
    if sum(tensor.nbytes for _, tensor in ordered) < _PARALLEL_BYTES:
        hashes = [_tensor_digest(tensor) for _, tensor in ordered]
    else:
        with ThreadPoolExecutor() as pool:
            hashes = list(pool.map(_tensor_digest, (tensor for _, tensor in ordered)))
    lines = [f"{name} {list(tensor.shape)} {digest}" for (name, tensor), digest in zip(ordered, hashes, strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _tensor_digest(tensor: Tensor) -> str:
    if tensor.is_meta:
        return ""
    tensor = tensor.detach()
    if is_traceable_wrapper_subclass(tensor):  # quantized
        tensor = tensor.dequantize()
    if tensor.is_floating_point():
        tensor = tensor.to(torch.bfloat16)
    return hashlib.sha256(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data).hexdigest()


def cached_digest(files: Sequence[Path], kind: str, compute: Callable[[], str]) -> str:
    """Return the digest of models loaded from `files`, from the user's cache if these files were seen before.

    They are known by path, size and time of modification; `kind` says what else decides the digest.
    """
    known = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in (each.resolve() for each in files)]
    key = hashlib.sha256(json.dumps([_DEFINITION, kind, *sorted(known)]).encode()).hexdigest()
    with suppress(OSError, RuntimeError, ValueError):  # RuntimeError where there is no home
        path = user_cache() / "digests" / key
        if is_file(path) and len(digest := path.read_text(encoding="ascii")) == hashlib.sha256().digest_size * 2:
            return digest
    digest = compute()
    with suppress(OutputError, RuntimeError, ValueError):  # computed again the next time
        write_text(user_cache() / "digests" / key, digest)
    return digest


def write_checksums(folder: Path) -> None:
    """Write the checksums of all files in a folder that decide what its model gives. Raises OutputError."""
    not_checked = {CHECKSUMS_FILE, *COMPANIONS, CHECKPOINTS}
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in _CHECKED_SUFFIXES and is_file(path)]
    files = [path for path in files if not_checked.isdisjoint(path.relative_to(folder).parts)]
    write_json(folder / CHECKSUMS_FILE, {file.relative_to(folder).as_posix(): file_checksum(file) for file in files})


def check_checksums(folder: Path) -> None:
    """Compare the files in a folder with its checksums, if it has any. Files without a checksum are not compared.

    Raises CheckpointError naming a file that differs. FOREJUDGE_SKIP_CHECKSUMS=1 in the environment skips it all.
    """
    path = folder / CHECKSUMS_FILE
    if os.environ.get(SKIP_VARIABLE, "0") != "0" or not is_file(path):
        return
    for name, expected in read_config(path, FileChecksums).root.items():
        if is_file(folder / name) and (found := file_checksum(folder / name)) != expected:
            raise CheckpointError(
                f"{folder / name} is damaged or was changed: its SHA-256 is {found[:16]}..., expected "
                f"{expected[:16]}...; get it again, or delete {path} if the change was meant"
            )


def file_checksum(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits. Raises CheckpointError for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): expected a file that can be read") from None
