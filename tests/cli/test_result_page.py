"""docs/result.md has a row for each field of the record, and no others."""

import re
from pathlib import Path
from typing import get_args, get_origin

import pytest
from pydantic import BaseModel

from forejudge.result import SearchRecord

STAGES = ("encode", "prefix", "verify", "suffix", "decode", "total")


def fields_of(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Dotted names of all fields; a list's items are marked by []."""
    names = set()
    for name, field in model.model_fields.items():
        names.add(prefix + name)
        item = next((kind for kind in get_args(field.annotation) if isinstance(kind, type)), None)
        item_mark = "[]" if get_origin(field.annotation) is tuple else ""
        for kind, mark in ((field.annotation, ""), (item, item_mark)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                names |= fields_of(kind, f"{prefix}{name}{mark}.")
    return names


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "result.md").read_text(encoding="utf-8")


def test_the_page_has_a_row_for_each_field(page: str) -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == fields_of(SearchRecord)


def test_the_page_names_the_stages(page: str) -> None:
    rows = re.findall(r"^\| (\w+) \|", page.partition("## Stages")[2], flags=re.MULTILINE)
    assert tuple(rows[1:]) == STAGES
