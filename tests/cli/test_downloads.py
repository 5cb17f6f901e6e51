"""Models that cannot be downloaded or loaded end a command with one line and a status."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.support.command import CommandLine, refusal
from tests.support.hub_cache import add_to_cache
from tests.support.hub_server import HubServer, hub_server


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def hub(cache: Path, tiny_generator: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server(monkeypatch) as server:
        server.models["owner/tiny"] = tiny_generator
        yield server


@pytest.fixture
def generate(forejudge: CommandLine, tiny_verifier: Path) -> CommandLine:
    """With a generator of the hub, to be named first."""
    return CommandLine(forejudge.capture, ("a star", "--verifier", str(tiny_verifier), "--device", "cpu"))


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "is full: make room there"),
        (KeyboardInterrupt(), 130, "error: interrupted: owner/tiny was being downloaded; the same command continues"),
    ],
)
def test_a_download_that_ends_early_ends_with_one_line(
    generate: CommandLine, error: BaseException, status: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends_early(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.file_download.http_get", ends_early)
    assert said in refusal(generate("generate", "--generator", "owner/tiny"), status)


@pytest.mark.usefixtures("cache")
def test_a_model_that_is_not_cached_needs_a_network(generate: CommandLine) -> None:
    said = refusal(generate("generate", "--generator", "owner/tiny@v1"), 1)
    assert "owner/tiny@v1 cannot be loaded: HF_HUB_OFFLINE is set" in said


def test_a_truncated_file_of_the_cache_is_named_with_what_to_delete(
    generate: CommandLine, cache: Path, tiny_generator: Path
) -> None:
    snapshot = add_to_cache(cache, "owner/tiny", tiny_generator)
    weights = snapshot / "vae" / "diffusion_pytorch_model.safetensors"
    blob = weights.resolve()
    blob.write_bytes(blob.read_bytes()[:-100])
    said = refusal(generate("generate", "--generator", "owner/tiny"), 1)
    assert f"{weights} cannot be loaded" in said
    assert f"delete {blob} and get it again" in said
