"""Ways in which a file is damaged: cut, flipped, emptied, or JSON of another shape."""

import json
import random
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Damage = Callable[[bytes], bytes]
JSON, LINES = {".json"}, {".jsonl", ".txt", ".jinja", ".md"}


def _flip(share: float) -> Damage:
    def flip(content: bytes) -> bytes:
        place = int(len(content) * share)
        return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :] if content else content

    return flip


def _lines(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    return lambda content: b"".join(change(content.splitlines(keepends=True)))


def _json(change: Callable[[Any], Any]) -> Damage:
    """Change a JSON file, or the first line of JSON lines. Leave what is neither."""

    def changed(content: bytes) -> bytes:
        first, separator, rest = content.partition(b"\n") if content.startswith(b'{"') else (content, b"", b"")
        try:
            return json.dumps(change(json.loads(first))).encode() + separator + rest
        except ValueError:
            return content

    return changed


def _numbers(change: Callable[[float], Any]) -> Damage:
    return _json(lambda value: _walk(value, change))


def _walk(value: Any, change: Callable[[float], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _walk(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [_walk(each, change) for each in value]
    return change(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _rows(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Damage:
    """Write other rows into a Parquet file."""

    def changed(content: bytes) -> bytes:
        new = BytesIO()
        pq.write_table(pa.Table.from_pylist(change(pq.ParquetFile(BytesIO(content)).read().to_pylist())), new)
        return new.getvalue()

    return changed


def _numbers_in_rows(change: Callable[[float], Any]) -> Damage:
    return _rows(lambda rows: [_walk(row, change) for row in rows])


def _rename_keys(value: Any) -> Any:
    return {f"{key}_": each for key, each in value.items()} if isinstance(value, dict) else value


def _latin(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + b"\xe9" + content[middle:]


BYTES: dict[str, Damage] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "minus_one": lambda content: content[:-1],
    "flip_early": _flip(0.05),
    "flip_middle": _flip(0.5),
    "flip_late": _flip(0.95),
    "noise": lambda content: random.Random(0).randbytes(len(content)),
}
OF_LINES: dict[str, Damage] = {
    "latin": _latin,
    "no_lines": lambda content: b"\n",
    "half_line": _lines(lambda lines: [*lines[:-1], lines[-1][: len(lines[-1]) // 2]] if lines else lines),
    "first_line_gone": _lines(lambda lines: lines[1:]),
    "last_line_twice": _lines(lambda lines: lines + lines[-1:]),
}
OF_JSON: dict[str, Damage] = {
    "latin": _latin,
    "null": lambda content: b"null",
    "listed": lambda content: b"[]",
    "number": lambda content: b"7",
    "braces": lambda content: b"{}",
    "deep": lambda content: b"[" * 100_000,
    "keys_other": _json(_rename_keys),
    "numbers_as_text": _numbers(lambda number: "x"),
    "numbers_negative": _numbers(lambda number: -1 - abs(number)),
    "numbers_huge": _numbers(lambda number: 123456789012345678901),
    "numbers_nan": _numbers(lambda number: float("nan")),
}
OF_ROWS: dict[str, Damage] = {
    "null": lambda content: b"null",
    "first_row_gone": _rows(lambda rows: rows[1:]),
    "last_row_twice": _rows(lambda rows: rows + rows[-1:]),
    "other_columns": _rows(lambda rows: [_rename_keys(row) for row in rows]),
    "text_in_rows": _numbers_in_rows(lambda number: "x"),
    "negative_in_rows": _numbers_in_rows(lambda number: -1 - abs(number)),
    "nan_in_rows": _numbers_in_rows(lambda number: number if isinstance(number, int) else float("nan")),
}


def damages(path: Path) -> Iterator[str]:
    """Name the ways in which a file can be damaged that change it."""
    content = path.read_bytes()
    kinds = dict(BYTES)
    if path.suffix in JSON | LINES:
        kinds |= OF_LINES
    if path.suffix in (*JSON, ".jsonl"):
        kinds |= OF_JSON
    if path.suffix == ".parquet":
        kinds |= OF_ROWS
    yield from (name for name, damage in kinds.items() if damage(content) != content)


def damage_file(path: Path, name: str) -> None:
    """Damage a file in one way."""
    path.write_bytes((BYTES | OF_LINES | OF_JSON | OF_ROWS)[name](path.read_bytes()))
