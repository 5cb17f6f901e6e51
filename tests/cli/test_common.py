"""License notices, and the cache of compiled code."""

import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from forejudge.cli.common import print_licenses, use_compile_cache
from forejudge.generators import KNOWN_MODELS, GeneratorSpec
from forejudge.hub import Source
from tests.support.command import CommandLine
from tests.support.folders import copy_folder
from tests.support.hub_cache import add_to_cache

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@pytest.fixture(autouse=True)
def unset_cache_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset the variable, and restore it after the test."""
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)


def test_compiled_code_is_kept_in_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_compile_cache()
    assert os.environ[VARIABLE] == str(tmp_path / "forejudge" / "compiled")
    assert Path(os.environ[VARIABLE]).is_dir()


def test_a_variable_set_by_the_user_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(VARIABLE, "elsewhere")
    use_compile_cache()
    assert os.environ[VARIABLE] == "elsewhere"


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_without_a_writable_cache_the_variable_stays_unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    use_compile_cache()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    use_compile_cache()
    assert VARIABLE not in os.environ


TINY = "license of owner/tiny: NSCL v2-custom; its terms are at https://huggingface.co/owner/tiny"
JUDGE = "license of owner/judge: mit; its terms are at https://huggingface.co/owner/judge"


@pytest.fixture
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def on_the_hub(
    forejudge: CommandLine, tiny_generator: Path, tiny_verifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """`forejudge` with tiny models from the hub's cache: a generator with a spec, a verifier with a card."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
    spec = GeneratorSpec(
        name="tiny", pipeline="owner/tiny", verifier="owner/judge", license="NSCL v2-custom", description=""
    )
    monkeypatch.setitem(KNOWN_MODELS, "tiny", spec)
    judge = copy_folder(tiny_verifier, tmp_path / "judge")
    (judge / "README.md").write_text("---\nlicense: mit\n---\n")
    add_to_cache(tmp_path / "hub", "owner/tiny", tiny_generator)
    add_to_cache(tmp_path / "hub", "owner/judge", judge)
    return CommandLine(forejudge.capture, ("--generator", "tiny", "--n", "1", "--device", "cpu"))


def license_lines(forejudge: CommandLine) -> list[str]:
    outcome = forejudge("generate", "a star", "--json")
    assert outcome.status == 0, outcome
    assert outcome.out.startswith("{")  # nothing but the result
    return [line for line in outcome.err.splitlines() if line.startswith("license")]


def test_a_license_is_shown_once_for_each_model(on_the_hub: CommandLine, user_cache: Path) -> None:
    assert license_lines(on_the_hub) == [TINY, JUDGE]
    assert license_lines(on_the_hub) == []
    memory = user_cache / "forejudge" / "licenses-shown.txt"
    memory.write_text("owner/judge\n")
    assert license_lines(on_the_hub) == [TINY]


def test_a_cache_that_cannot_be_written_does_no_harm(on_the_hub: CommandLine, user_cache: Path) -> None:
    user_cache.write_text("a file in the place of the folder")
    assert license_lines(on_the_hub) == license_lines(on_the_hub) == [TINY, JUDGE]


def test_folders_have_no_license_notice(generate: CommandLine, user_cache: Path) -> None:
    assert "license" not in generate("generate", "a star", "--n", "1").err
    assert not (user_cache / "forejudge" / "licenses-shown.txt").exists()


def test_without_a_home_licenses_are_shown_each_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr("forejudge.cli.common._license_text", lambda source: "MIT")
    for _ in range(2):
        print_licenses([Source("owner/model", Path("model"), None, "0" * 40)])
    assert capsys.readouterr().err == "license of owner/model: MIT\n" * 2
