"""Files and folders that are written whole or not at all; failures are an OutputError of one line."""

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR
from io import BytesIO
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock, Timeout

from forejudge.errors import InvalidRequest, OutputError

if TYPE_CHECKING:
    from PIL.Image import Image


def is_file(path: Path | str) -> bool:
    """Return whether a path names a file, also through links. Raises InvalidRequest where it cannot be told."""
    return S_ISREG(_mode(path))


def is_dir(path: Path | str) -> bool:
    """Return whether a path names a folder, also through links. Raises InvalidRequest where it cannot be told."""
    return S_ISDIR(_mode(path))


def exists(path: Path | str) -> bool:
    """Return whether there is anything at a path. Raises InvalidRequest where it cannot be told."""
    return _mode(path) != 0


def _mode(path: Path | str) -> int:
    """Return the type bits of what a path names; 0 for nothing, and for a text that can name nothing."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116, an option that is no path may be too long for one
    except ValueError:  # holds a NUL
        return 0
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR, ENAMETOOLONG, ELOOP):
            return 0
        raise InvalidRequest(
            f"{path} cannot be opened ({error.strerror}): change its permissions, or choose another path"
        ) from None


class Journal:
    """JSON lines that survive a kill: entries are appended one by one, and opening cuts off a torn last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _target(path).open("a+b") as file:
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)

    def add(self, entry: Any) -> None:
        """Append an entry of JSON types. Raises OutputError."""
        with _output_errors(self.path), self.path.open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")


def user_cache() -> Path:
    """Return forejudge's folder in the user's cache (XDG). Raises RuntimeError where there is no home."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forejudge"


def prepare_folder(folder: Path) -> None:
    """Create a folder that can be written to, and clear what killed processes left in it. Raises OutputError."""
    probe = folder / _temporary_name()
    with _output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder, _DEPTH)
        probe.touch(exist_ok=False)
        probe.unlink()


def nearest_existing_path(path: Path) -> Path:
    """Return the path itself, or its nearest parent that exists."""
    return next(location for location in (path.absolute(), *path.absolute().parents) if exists(location))


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder on the same disk as `folder`, which need not exist. Raises OutputError."""
    with _output_errors(folder):
        location = nearest_existing_path(folder)
        clear_leftovers(location)
        scratch = location / _temporary_name()
        scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Raise OutputError where a folder, which need not exist, cannot be written to; leaves nothing behind."""
    with scratch_folder(folder):
        pass


def check_replaceable(path: Path) -> None:
    """Raise OutputError where a file cannot be written at a path; leaves nothing behind."""
    check_writable(_target(path).parent)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically. Raises OutputError."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, atomically. Raises OutputError."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_image(path: Path, image: "Image") -> None:
    """Write an image as PNG, atomically. Raises OutputError."""
    buffer = BytesIO()
    image.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file and its folder, atomically: a reader finds all of it or the previous one. Raises OutputError.

    Several processes or machines may write one file at once: the last one wins.
    """
    with _output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        target = _target(path)
        partial = target.with_name(_temporary_name())
        try:
            with partial.open("xb") as file:  # follows no link that lies there
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _target(path: Path) -> Path:
    """Return the file that a path names through links. Raises OutputError for a folder or device, never replaced."""
    if exists(path) and not is_file(path):
        raise OutputError(f"{path} is a folder or a device, which is not replaced: choose another path")
    return Path(os.path.realpath(path)) if path.is_symlink() else path


_DEPTH = 2  # levels of an output folder, such as 00000/samples; it may lie in a folder of much else
_TEMPORARY = f".forejudge-{platform.node()}-"  # the host, as process ids are its own


def _temporary_name() -> str:
    return f"{_TEMPORARY}{os.getpid()}-{uuid4().hex}.partial"


def clear_leftovers(folder: Path, depth: int = 0) -> None:
    """Remove what killed processes of this host left in a folder and in those up to `depth` levels below it."""
    patterns = ["/".join([*["*"] * level, f"{_TEMPORARY}*.partial"]) for level in range(depth + 1)]
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        if not _is_running(path.name.removeprefix(_TEMPORARY).partition("-")[0]):
            with suppress(OSError):
                shutil.rmtree(path) if is_dir(path) and not path.is_symlink() else path.unlink()


def _is_running(process_id: str) -> bool:
    try:
        if os.name != "nt":  # where signal 0 would interrupt it
            os.kill(int(process_id), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that becomes `folder` on success and is removed on failure.

    Raises InvalidRequest where `folder` holds something already, OutputError where it cannot be written.
    """
    if exists(folder) and (not is_dir(folder) or any(folder.iterdir())):
        raise InvalidRequest(f"{folder} exists already: choose another name, or remove it")
    partial = folder.absolute().with_name(_temporary_name())
    try:
        with _output_errors(folder):
            folder.absolute().parent.mkdir(parents=True, exist_ok=True)
            clear_leftovers(partial.parent)
            partial.mkdir()
        yield partial
        with _output_errors(folder):
            partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file if it exists. Raises OutputError."""
    with _output_errors(path):
        path.unlink(missing_ok=True)


@contextmanager
def output_folder(folder: Path, number: int = 1, count: int = 1) -> Iterator[None]:
    """Prepare a folder and hold one of its `count` shards.

    Raises OutputError, and InvalidRequest where another process holds that shard.
    """
    with exclusive_lock(folder / f".{number}-of-{count}.lock") as is_first:
        if is_first:
            prepare_folder(folder)
        yield


@contextmanager
def exclusive_lock(path: Path) -> Iterator[bool]:
    """Hold a lock file, in one thread also several times; it is removed afterwards, and a kill releases it.

    Yields whether it was not held before.
    Raises InvalidRequest where another process or thread holds it.
    """
    with _output_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, is_singleton=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InvalidRequest(
                f"{path.parent} is being written to by another process: wait for it, or choose another --out"
            ) from None
    try:
        yield lock.lock_counter == 1
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):
                path.unlink()  # who waited for this file sees that it is gone, and takes a new one
        lock.release()


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    check_utf8(path)
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror}): choose another --out or free some space; "
            "what was written before is kept"
        ) from None


def check_utf8(path: Path) -> None:
    """Raise OutputError for a path that is no text in UTF-8: safetensors could not read what is written there."""
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        raise OutputError(f"{path} is no text in UTF-8: choose another --out") from None


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raise OutputError where fewer than `needed` bytes are free on the disk of a folder, which need not exist."""
    free = free_bytes(folder)
    if needed > free:
        raise OutputError(
            f"{folder}: {what} take {in_words(needed)} and {in_words(free)} are free: free some space, choose another "
            "--out, or store less of them"
        )


def free_bytes(folder: Path) -> int:
    """Return the free bytes on the disk of a folder, which need not exist."""
    return shutil.disk_usage(nearest_existing_path(folder)).free


def in_words(size: int) -> str:
    """Format a number of bytes, in GB or MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
