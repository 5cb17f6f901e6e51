"""Contents of a folder, in a form that two runs of one command share."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors import safe_open

Contents = dict[str, str]
"""A value by its place: the files of a folder, for JSON each leaf, and the lines of the output."""


def contents(folder: Path) -> Contents:
    """Read everything below a folder."""
    found: Contents = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found |= _values(path, path.relative_to(folder).as_posix())
    return found


def lines(text: str, folder: Path) -> Contents:
    """Number the lines of the output, without the folder's own name."""
    shown = text.replace(str(folder), "HERE")
    try:
        return {f"output:{place}": value for place, value in _leaves(json.loads(shown))}
    except ValueError:
        return {f"output:{number}": line for number, line in enumerate(shown.splitlines())}


def difference(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    """Return the places where two contents differ."""
    return {place for place in one.keys() | other.keys() if one.get(place) != other.get(place)}


def _values(path: Path, name: str) -> Contents:
    try:
        if path.suffix == ".json":
            parsed = json.loads(path.read_text(encoding="utf-8"))
            return {f"{name}:{place}": value for place, value in _leaves(parsed)}
        if path.suffix == ".md":  # the repository may change meanwhile
            texts = path.read_text(encoding="utf-8").splitlines()
            return {f"{name}:{number}": text for number, text in enumerate(texts) if not text.startswith("| commit |")}
        if path.suffix == ".jsonl":
            texts = path.read_text(encoding="utf-8").splitlines()
            parsed = [json.loads(text) for text in texts]
            return {f"{name}:{place}": value for place, value in _leaves(parsed)}
    except (ValueError, RecursionError):
        pass
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()}


def _leaves(value: Any, place: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [leaf for key, each in value.items() for leaf in _leaves(each, f"{place}/{key}")]
    if isinstance(value, list) and value:
        return [leaf for index, each in enumerate(value) for leaf in _leaves(each, f"{place}/{index}")]
    return [(place, json.dumps(value))]


def unreadable(path: Path) -> str | None:
    """Return what is wrong with a file that a command has written, if anything."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".jsonl":
            for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
                json.loads(line)
        elif path.suffix == ".parquet":
            pq.ParquetFile(path).read()
        elif path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                file.keys()
        elif path.suffix == ".png":
            from PIL import Image

            with Image.open(path) as image:
                image.load()
    except Exception as error:
        return f"{path.name} was written and cannot be read: {error!r}"
    return f"{path.name} is left behind" if path.name.endswith((".partial", ".probe")) else None
