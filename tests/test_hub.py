"""Models by name: from a folder, from the hub's cache with no network, and what is said where neither has them."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from huggingface_hub import constants

from forejudge.errors import CheckpointError
from forejudge.hub import Source, card_license, fetch, split_revision
from tests.support.hub_cache import COMMIT, add_to_cache
from tests.support.hub_server import HubServer, hub_server

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
    """The hub does not answer, without HF_HUB_OFFLINE saying so."""
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
    assert "config.json is a file: expected the folder" in refusal(str(folder / "config.json"))


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
    snapshot = add_to_cache(cache, "owner/model", folder)
    assert fetch("owner/model") == Source("owner/model", snapshot, None, COMMIT)
    assert fetch("owner/model@main") == Source("owner/model", snapshot, "main", COMMIT)
    assert fetch(f"owner/model@{COMMIT}") == Source("owner/model", snapshot, COMMIT, COMMIT)


@pytest.mark.usefixtures("network_down")
def test_a_network_that_is_down_is_as_good_as_none(cache: Path, folder: Path) -> None:
    snapshot = add_to_cache(cache, "owner/model", folder)
    assert fetch("owner/model").folder == snapshot
    assert "owner/other cannot be loaded: the hub cannot be reached, and" in refusal("owner/other")


def test_revisions_are_told_apart(cache: Path, folder: Path) -> None:
    add_to_cache(cache, "owner/model", folder)
    (folder / "config.json").write_text('{"width": 2}')
    add_to_cache(cache, "owner/model", folder, commit=OTHER, ref="v2")
    assert fetch("owner/model").commit == COMMIT
    assert fetch("owner/model@v2").commit == OTHER
    assert (fetch("owner/model@v2").folder / "config.json").read_text() == '{"width": 2}'


def test_what_is_not_cached_is_refused_without_a_network(cache: Path, folder: Path) -> None:
    add_to_cache(cache, "owner/model", folder)
    for name in ("owner/other", "owner/model@v3"):
        said = refusal(name)
        assert said.startswith(f"{name} cannot be loaded: HF_HUB_OFFLINE is set, and {cache} does not hold all of it")


class TestDownload:
    """From a hub on this machine, by the hub's own client."""

    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The client waits before it tries again."""
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)

    @pytest.fixture
    def hub(self, cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
        (folder / "weights.bin").write_text("could run code")
        (folder / "code.py").write_text("is code")
        (folder / "rounded.fp16.safetensors").write_text("a second copy")
        with hub_server(monkeypatch) as server:
            server.models["owner/model"] = folder
            yield server

    def test_only_what_is_read_is_downloaded_and_only_once(self, hub: HubServer) -> None:
        found = fetch("owner/model", ignore_patterns=["*.fp16*"])
        assert (found.commit, [path.name for path in found.folder.iterdir()]) == (COMMIT, ["config.json"])
        assert fetch("owner/model", ignore_patterns=["*.fp16*"]) == found
        assert hub.sent_files == ["config.json"]

    def test_a_model_that_is_not_there_is_refused(self, hub: HubServer) -> None:
        assert "owner/other cannot be loaded: the hub has no such model" in refusal("owner/other")

    def test_what_breaks_off_leaves_nothing_half_made_and_is_mended_by_another_try(
        self, hub: HubServer, cache: Path
    ) -> None:
        hub.truncated_file = "config.json"
        assert "owner/model cannot be loaded: the download failed (peer closed connection" in refusal("owner/model")
        assert not list(cache.rglob("*.incomplete"))
        assert not list(cache.rglob("config.json"))
        hub.truncated_file = None
        assert (fetch("owner/model").folder / "config.json").read_text() == "{}"

    @pytest.mark.usefixtures("hub")
    def test_a_torn_file_that_is_deleted_is_downloaded_anew(self) -> None:
        (fetch("owner/model").folder / "config.json").resolve().unlink()
        assert (fetch("owner/model").folder / "config.json").read_text() == "{}"

    @pytest.mark.usefixtures("hub")
    def test_a_disk_that_is_full_is_named(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def written_half(_: str, file: BinaryIO, **__: object) -> None:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("huggingface_hub.file_download.http_get", written_half)
        assert f"owner/model cannot be loaded: {cache} is full: make room there" in refusal("owner/model")
        assert not list(cache.rglob("*.incomplete"))

    @pytest.mark.usefixtures("hub")
    @pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
    def test_a_cache_that_cannot_be_written_is_named(
        self, error: int, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuses(*_: object, **__: object) -> None:
            raise OSError(error, "no")

        monkeypatch.setattr("huggingface_hub.file_download.http_get", refuses)
        said = refusal("owner/model")
        assert f"{cache} cannot be written (no): make it writable, or set HF_HUB_CACHE to another folder" in said

    @pytest.mark.usefixtures("hub")
    def test_a_cache_that_is_a_file_is_named(self, cache: Path) -> None:
        cache.write_text("")
        assert f"{cache} cannot be written" in refusal("owner/model")

    @pytest.mark.usefixtures("hub")
    def test_a_name_that_the_hub_cannot_have_is_refused(self) -> None:
        assert "that is no name of a model: expected owner/model" in refusal("owner/mo del")

    @pytest.mark.usefixtures("hub")
    def test_an_interrupted_one_says_how_to_go_on(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("huggingface_hub.file_download.http_get", interrupted)
        with pytest.raises(KeyboardInterrupt, match="owner/model was being downloaded; the same command continues"):
            fetch("owner/model")
        assert not list(cache.rglob("*.incomplete"))


def test_a_license_is_what_the_card_states(cache: Path, folder: Path) -> None:
    (folder / "README.md").write_text("---\ntags:\n- a\nlicense: mit\n---\nlicense: none\n")
    add_to_cache(cache, "owner/model", folder)
    assert card_license(str(folder)) == card_license("owner/model") == card_license("owner/model@main") == "mit"


@pytest.mark.parametrize("card", ["no front matter", "---\ntags:\n- a\n---\n", "---\n: [\n---\n"])
def test_a_card_that_states_no_license_is_no_obstacle(card: str, folder: Path) -> None:
    (folder / "README.md").write_text(card)
    assert card_license(str(folder)) is None
    assert card_license("owner/nowhere") is None
