"""Files of prompts: plain lines, or GenEval's JSON lines."""

import json
from dataclasses import dataclass
from pathlib import Path

from forejudge.errors import InvalidRequest


@dataclass(frozen=True)
class PromptLine:
    """One prompt; `where` names its file and line, `metadata` is its JSON line as it stands in the file."""

    prompt: str
    metadata: str
    where: str


def read_prompts(path: Path) -> list[PromptLine]:
    """All prompts of a file; blank lines are skipped. Raises InvalidRequest naming the line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidRequest(f"{path} cannot be read ({reason}): expected a file with a prompt a line") from None
    read = _from_json if path.suffix == ".jsonl" else _from_text
    prompts = [read(line.strip(), f"{path}, line {at}") for at, line in enumerate(lines, start=1) if line.strip()]
    if not prompts:
        raise InvalidRequest(f"{path} holds no prompt: expected one a line")
    return prompts


def _from_text(line: str, where: str) -> PromptLine:
    return PromptLine(line, json.dumps({"prompt": line}, ensure_ascii=False), where)


def _from_json(line: str, where: str) -> PromptLine:
    try:
        metadata = json.loads(line)
    except ValueError as error:
        raise InvalidRequest(f"{where}: not JSON ({error})") from None
    prompt = metadata.get("prompt") if isinstance(metadata, dict) else None
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidRequest(f'{where}: expected an object with a "prompt" that is not empty, got {line[:80]}')
    return PromptLine(prompt, line, where)
