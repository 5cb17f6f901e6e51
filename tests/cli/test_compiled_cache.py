"""What commands compile is kept for the next start, where that can be done."""

import os
from pathlib import Path

import pytest

from forejudge.cli.compiled_cache import keep_compiled

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture(autouse=True)
def without_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its own; what is set in a test is gone after it."""
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)


def test_it_is_kept_in_the_user_s_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_compiled()
    assert os.environ[VARIABLE] == str(tmp_path / "forejudge" / "compiled")
    assert Path(os.environ[VARIABLE]).is_dir()


def test_it_goes_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "elsewhere")
    keep_compiled()
    assert os.environ[VARIABLE] == "elsewhere"


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_without_a_place_to_write_pytorch_s_own_has_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_compiled()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    keep_compiled()
    assert VARIABLE not in os.environ
