"""A file of JSON lines that survives a kill: a line counts once it is whole."""

import json
from pathlib import Path
from typing import Any


class Journal:
    """Entries appended one by one; opening it again cuts off a last line that was torn."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            path.write_text(whole)
        self.entries: list[Any] = [json.loads(line) for line in whole.splitlines()]

    def add(self, entry: Any) -> None:
        """Append an entry, which JSON must be able to hold."""
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self.entries.append(entry)
