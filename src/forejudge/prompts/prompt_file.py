"""Prompt files, plain text or JSON, and the groups of candidates that are generated for their lines."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Generator, SamplingParams
from forejudge.noise import candidate_seed, encode_text
from forejudge.prompts.geneval import PromptMetadata
from forejudge.types import Candidates, Stage

_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")  # their first line is JSON even where it begins otherwise
_TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True)
class PromptLine:
    """One prompt. `where` names its file and line, `metadata` is its JSON line as the file has it."""

    prompt: str
    metadata: str
    where: str

    def geneval_metadata(self) -> PromptMetadata:
        """Parse the metadata that GenEval evaluates images by. Raises InvalidRequest naming the line."""
        try:
            return PromptMetadata.from_line(self.metadata)
        except InvalidRequest as error:
            raise InvalidRequest(f"{self.where}: {error}") from None


def check_lines(lines: Iterable[PromptLine], check: Callable[[str], None]) -> None:
    """Check each distinct prompt once. Raises InvalidRequest naming the first line whose prompt `check` refuses."""
    firsts: dict[str, PromptLine] = {}
    for line in lines:
        firsts.setdefault(line.prompt, line)
    for line in firsts.values():
        try:
            check(line.prompt)
        except InvalidRequest as error:
            raise InvalidRequest(f"{line.where}: {error}") from None


def prompts_digest(lines: Iterable[PromptLine]) -> str:
    """Return the SHA-256 of prompts with their metadata, in order."""
    return hashlib.sha256("\n".join(line.metadata for line in lines).encode()).hexdigest()


def read_prompts(path: Path) -> list[PromptLine]:
    """Read all prompts of a file: plain text, one a line, or JSON objects with a "prompt", one a line or in an array.

    The first character decides, whatever the file is called: { or [ begins JSON. Skips blank lines. Raises
    InvalidRequest naming the first malformed line.
    """
    suffix = path.suffix.lower()
    if suffix in _TABLE_SUFFIXES:
        raise InvalidRequest(f"{path} is a table: expected text with one prompt a line, so save its column of prompts")
    lines = read_lines(path, "prompt")
    first = next(iter(lines.values()))
    if first.startswith("["):
        return _from_array(lines, path)
    read = _from_json if first.startswith("{") or suffix in _JSON_SUFFIXES else _from_text
    return [read(line, f"{path}, line {number}") for number, line in lines.items()]


def read_lines(path: Path, entry: str) -> dict[int, str]:
    """Return the stripped lines of a text file by line number, from 1, without blank ones.

    `entry` names what a line holds, for errors. Raises InvalidRequest for a file that is unreadable or has only blank
    lines.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidRequest(f"{path} cannot be read ({reason}): expected a text file, one {entry} a line") from None
    kept = {number: line.strip() for number, line in enumerate(lines, start=1) if line.strip()}
    if not kept:
        raise InvalidRequest(f"{path} holds no {entry}: expected one a line")
    return kept


def _from_text(line: str, where: str) -> PromptLine:
    if line.startswith(('{"', '["')):
        raise InvalidRequest(f"{where}: JSON among plain prompts, {line[:80]}: write all lines as JSON, or none")
    return PromptLine(line, json.dumps({"prompt": line}, ensure_ascii=False), where)


def _from_json(line: str, where: str) -> PromptLine:
    return _from_entry(_parse_json(line, where), line, where)


def _from_array(lines: dict[int, str], path: Path) -> list[PromptLine]:
    """Read a JSON array of objects, or of prompts alone."""
    entries = _parse_json(" ".join(lines.values()), f"{path}, from line {min(lines)} on")
    if not entries:
        raise InvalidRequest(f"{path} holds no prompt: its array is empty")
    given = [entry if isinstance(entry, dict) else {"prompt": entry} for entry in entries]
    return [
        _from_entry(entry, json.dumps(entry), f"{path}, entry {number}") for number, entry in enumerate(given, start=1)
    ]


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f'{where}: not JSON ({error}): expected one object a line, such as {{"prompt": "a red circle"}}'
        ) from None


def _from_entry(entry: object, metadata: str, where: str) -> PromptLine:
    prompt = entry.get("prompt") if isinstance(entry, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidRequest(f'{where}: expected an object with a "prompt" that is not empty, got {metadata[:80]}')
    try:
        encode_text(prompt)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error}") from None
    return PromptLine(prompt, metadata, where)


@dataclass(frozen=True)
class Group:
    """The candidates for the `image_index`-th image of a prompt."""

    line: PromptLine
    image_index: int
    seeds: tuple[int, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Return the columns of each candidate that are known before it is generated."""
        known = {"prompt": self.line.prompt, "metadata": self.line.metadata, "image_index": self.image_index}
        return [{**known, "index": index, "seed": seed} for index, seed in enumerate(self.seeds)]

    def generate(
        self, generator: Generator, stages: Iterable[Stage], batch_size: int, sampling: SamplingParams | None = None
    ) -> Iterator[Candidates]:
        """Encode the prompt once and yield candidates at the furthest of `stages`, `batch_size` at a time.

        `sampling` defaults to the generator's own.
        """
        conditioning = generator.encode_without_padding(self.line.prompt, sampling or generator.defaults)
        wanted = frozenset(stages)
        for first in range(0, len(self.seeds), batch_size):
            yield generator.advance(generator.start(conditioning, self.seeds[first : first + batch_size]), wanted)


def groups_of(lines: Sequence[PromptLine], candidates: int, run_seed: int) -> list[Group]:
    """Return a group for each line; a repeated prompt is its next image."""
    groups = []
    for line, image_index in zip(lines, image_indices(lines), strict=True):
        seeds = tuple(candidate_seed(run_seed, line.prompt, image_index, index) for index in range(candidates))
        groups.append(Group(line, image_index, seeds))
    return groups


def image_indices(lines: Sequence[PromptLine]) -> list[int]:
    """Return how often the prompt of each line came before; outer white space makes no other prompt, as for seeds."""
    seen: Counter[str] = Counter()
    indices = []
    for prompt in (line.prompt.strip() for line in lines):
        indices.append(seen[prompt])
        seen[prompt] += 1
    return indices
