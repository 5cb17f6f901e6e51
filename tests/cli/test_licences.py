"""Whoever uses a model of the hub is told its licence, once."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from tests.cli.command import CommandLine
from tests.folders import copied
from tests.hub_cache import cached

from forejudge.generators import KNOWN_MODELS, GeneratorSpec

TINY = "licence of owner/tiny: NSCL v2-custom; its terms are at https://huggingface.co/owner/tiny"
JUDGE = "licence of owner/judge: mit; its terms are at https://huggingface.co/owner/judge"


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
        name="tiny", pipeline="owner/tiny", verifier="owner/judge", licence="NSCL v2-custom", description=""
    )
    monkeypatch.setitem(KNOWN_MODELS, "tiny", spec)
    judge = copied(tiny_verifier, tmp_path / "judge")
    (judge / "README.md").write_text("---\nlicense: mit\n---\n")
    cached(tmp_path / "hub", "owner/tiny", tiny_generator)
    cached(tmp_path / "hub", "owner/judge", judge)
    return CommandLine(forejudge.capture, ("--generator", "tiny", "--n", "1", "--device", "cpu"))


def told(forejudge: CommandLine) -> list[str]:
    outcome = forejudge("generate", "a star", "--json")
    assert outcome.status == 0, outcome
    assert outcome.out.startswith("{")  # nothing but the result
    return [line for line in outcome.err.splitlines() if line.startswith("licence")]


def test_a_licence_is_told_once_for_each_model(on_the_hub: CommandLine, user_cache: Path) -> None:
    assert told(on_the_hub) == [TINY, JUDGE]
    assert told(on_the_hub) == []
    memory = user_cache / "forejudge" / "licences-told.txt"
    memory.write_text("owner/judge\n")
    assert told(on_the_hub) == [TINY]


def test_a_cache_that_cannot_be_written_is_no_obstacle(on_the_hub: CommandLine, user_cache: Path) -> None:
    user_cache.write_text("a file in the place of the folder")
    assert told(on_the_hub) == told(on_the_hub) == [TINY, JUDGE]


def test_folders_are_their_owner_s_affair(generate: CommandLine, user_cache: Path) -> None:
    assert "licence" not in generate("generate", "a star", "--n", "1").err
    assert not user_cache.exists()
