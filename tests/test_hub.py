"""Models by name: from a folder, from the hub's cache with no network, and what is said where neither has them."""

import errno
from pathlib import Path

import pytest
from huggingface_hub import constants
from tests.hub_cache import COMMIT, cached

from forejudge.errors import CheckpointError
from forejudge.hub import Source, fetch, split_revision, stated_licence

OTHER = "f" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of one file."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return tmp_path / "model"


@pytest.fixture
def network_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers, though nobody said so beforehand."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def refusal(name: str) -> str:
    """The one line with which a name is refused."""
    with pytest.raises(CheckpointError) as caught:
        fetch(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_taken_as_it_is(folder: Path) -> None:
    assert fetch(str(folder)) == Source(str(folder), folder)
    assert "a folder has no revisions" in refusal(f"{folder}@main")


@pytest.mark.parametrize(
    ("name", "parts"),
    [("owner/model", ("owner/model", None)), ("owner/model@v1.0", ("owner/model", "v1.0")), ("a@", ("a", None))],
)
def test_a_revision_is_told_from_the_model(name: str, parts: tuple[str, str | None]) -> None:
    assert split_revision(name) == parts


@pytest.mark.parametrize("name", ["model", "a/b/c", "./model", "/model", "owner/"])
def test_what_is_no_name_of_a_model_is_refused(name: str, cache: Path) -> None:
    assert "no folder, nor a hub id such as owner/model" in refusal(name)


def test_a_cached_model_needs_no_network(cache: Path, folder: Path) -> None:
    snapshot = cached(cache, "owner/model", folder)
    assert fetch("owner/model") == Source("owner/model", snapshot, None, COMMIT)
    assert fetch("owner/model@main") == Source("owner/model", snapshot, "main", COMMIT)
    assert fetch(f"owner/model@{COMMIT}") == Source("owner/model", snapshot, COMMIT, COMMIT)


@pytest.mark.usefixtures("network_down")
def test_a_network_that_is_down_is_as_good_as_none(cache: Path, folder: Path) -> None:
    snapshot = cached(cache, "owner/model", folder)
    assert fetch("owner/model").folder == snapshot
    assert "owner/other cannot be loaded: the hub cannot be reached, and" in refusal("owner/other")


def test_revisions_are_told_apart(cache: Path, folder: Path) -> None:
    cached(cache, "owner/model", folder)
    (folder / "config.json").write_text('{"width": 2}')
    cached(cache, "owner/model", folder, commit=OTHER, ref="v2")
    assert fetch("owner/model").commit == COMMIT
    assert fetch("owner/model@v2").commit == OTHER
    assert (fetch("owner/model@v2").folder / "config.json").read_text() == '{"width": 2}'


def test_what_is_not_cached_is_refused_without_a_network(cache: Path, folder: Path) -> None:
    cached(cache, "owner/model", folder)
    for name in ("owner/other", "owner/model@v3"):
        said = refusal(name)
        assert said.startswith(f"{name} cannot be loaded: HF_HUB_OFFLINE is set, and {cache} does not hold all of it")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "is full: make room there, or name another disk's folder"),
        (ConnectionResetError("peer\nwent away"), "the download broke off (peer); try again"),
        (ValueError("incomplete read"), "the download broke off (incomplete read); try again"),
    ],
)
def test_a_download_that_breaks_off_says_so(
    error: Exception, said: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    assert said in refusal("owner/model")


def test_a_download_that_is_interrupted_says_how_to_go_on(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("huggingface_hub.snapshot_download", interrupted)
    with pytest.raises(KeyboardInterrupt, match="owner/model was being downloaded; the same command goes on"):
        fetch("owner/model")


def test_a_licence_is_what_the_card_states(cache: Path, folder: Path) -> None:
    (folder / "README.md").write_text("---\ntags:\n- a\nlicense: mit\n---\nlicense: none\n")
    cached(cache, "owner/model", folder)
    assert stated_licence(str(folder)) == stated_licence("owner/model") == stated_licence("owner/model@main") == "mit"


@pytest.mark.parametrize("card", ["no front matter", "---\ntags:\n- a\n---\n", "---\n: [\n---\n"])
def test_a_card_that_states_no_licence_is_no_obstacle(card: str, folder: Path) -> None:
    (folder / "README.md").write_text(card)
    assert stated_licence(str(folder)) is None
    assert stated_licence("owner/nowhere") is None
