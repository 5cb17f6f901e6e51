"""`forejudge` as a fixture, alone and with the tiny models."""

from pathlib import Path

import pytest

from tests.support.command import CommandLine


@pytest.fixture
def forejudge(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return CommandLine(capsys)


@pytest.fixture(scope="session")
def tiny_models(tiny_generator: Path, tiny_verifier: Path) -> tuple[str, ...]:
    """The options that name the tiny models."""
    return "--generator", str(tiny_generator), "--verifier", str(tiny_verifier)


@pytest.fixture
def generate(forejudge: CommandLine, tiny_models: tuple[str, ...]) -> CommandLine:
    """The command line with the tiny models; arguments start with those of `forejudge generate`."""
    return CommandLine(forejudge.capture, tiny_models)
