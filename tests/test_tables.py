"""The tables of the documents match the files under benchmarks/."""

import importlib.util
from pathlib import Path


def test_tables_are_generated_from_the_benchmarks(repository: Path) -> None:
    location = repository / "scripts" / "write_tables.py"
    spec = importlib.util.spec_from_file_location("write_tables", location)
    assert spec is not None
    assert spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    for path in writer.DOCUMENTS:
        text = path.read_text()
        assert "<!-- table: " in text
        assert text == writer.with_tables(text), f"{path.name} is outdated: run python scripts/write_tables.py"
