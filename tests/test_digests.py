"""Digests of tensors and files, and checksums beside weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from forejudge.digests import CHECKSUMS_FILE, cached_digest, check_checksums, tensors_digest, write_checksums
from forejudge.errors import CheckpointError
from forejudge.generators import load_generator
from forejudge.verifiers import load_verifier
from forejudge.verifiers.published_export import export_published
from tests.support.doubles import CPU
from tests.support.folders import copy_folder

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


def test_a_digest_depends_on_names_shapes_and_values_but_not_on_dtypes() -> None:
    whole = tensors_digest(WEIGHTS.items())
    assert tensors_digest([(name, WEIGHTS[name].half()) for name in "a"] + [("b", WEIGHTS["b"])]) == whole
    others = [
        {"a": WEIGHTS["a"], "c": WEIGHTS["b"]},
        {"a": WEIGHTS["a"].T.contiguous(), "b": WEIGHTS["b"]},
        {"a": WEIGHTS["a"] + 1, "b": WEIGHTS["b"]},
        {"a": WEIGHTS["a"].to("meta"), "b": WEIGHTS["b"]},
    ]
    assert len({whole, *(tensors_digest(each.items()) for each in others)}) == 5


def test_many_weights_are_hashed_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tensors_digest(WEIGHTS.items())
    monkeypatch.setattr("forejudge.digests._PARALLEL_BYTES", 1)
    assert tensors_digest(WEIGHTS.items()) == whole


def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"1234")
    digests = [letter * 64 for letter in "abcd"]
    computed = iter(digests)

    def digest(kind: str = "model") -> str:
        return cached_digest([file], kind, lambda: next(computed))

    assert [digest(), digest(), digest("other"), digest()] == [digests[0], digests[0], digests[1], digests[0]]
    file.write_bytes(b"12345")
    assert digest() == digests[2]
    (entry,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.read_text() == digests[2])
    entry.write_text(digests[2][:-1])
    assert digest() == digests[3]


def test_without_a_cache_folder_a_digest_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "model.safetensors"))
    assert cached_digest([tmp_path / "model.safetensors"], "model", lambda: "digest") == "digest"


def flip(file: Path) -> None:
    """Change the last byte of a file."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder with two files of weights and their checksums."""
    (tmp_path / "part").mkdir()
    for name in ("model.safetensors", "part/model.safetensors"):
        save_file(WEIGHTS, tmp_path / name)
    write_checksums(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["model.safetensors", "part/model.safetensors"])
def test_a_flipped_byte_is_named(weights: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    check_checksums(weights)
    flip(weights / name)
    with pytest.raises(CheckpointError, match=f"{weights / name} is damaged or was changed: its SHA-256 is "):
        check_checksums(weights)
    monkeypatch.setenv("FOREJUDGE_SKIP_CHECKSUMS", "1")
    check_checksums(weights)


def test_a_damaged_list_of_checksums_is_named(weights: Path) -> None:
    (weights / CHECKSUMS_FILE).write_text("null")
    with pytest.raises(CheckpointError, match=CHECKSUMS_FILE):
        check_checksums(weights)


def test_files_without_a_checksum_are_not_compared(weights: Path) -> None:
    (weights / "model.safetensors").rename(weights / "model.fp16.safetensors")
    check_checksums(weights)
    (weights / CHECKSUMS_FILE).unlink()
    flip(weights / "part" / "model.safetensors")
    check_checksums(weights)


@pytest.mark.parametrize("name", ["connector.safetensors", "language_model/model.safetensors"])
def test_a_flipped_byte_of_a_verifier_is_named(tiny_verifier: Path, tmp_path: Path, name: str) -> None:
    folder = copy_folder(tiny_verifier, tmp_path / "copy")
    flip(folder / name)
    with pytest.raises(CheckpointError, match=f"{name} is damaged or was changed"):
        load_verifier(str(folder), CPU, torch.float32)


@pytest.mark.parametrize(
    "name", ["verifier.json", "language_model/chat_template.jinja", "language_model/tokenizer_config.json"]
)
def test_a_changed_config_of_a_verifier_is_named(tiny_verifier: Path, tmp_path: Path, name: str) -> None:
    folder = copy_folder(tiny_verifier, tmp_path / "copy")
    (folder / "README.md").write_text("edited by hand")
    load_verifier(str(folder), CPU, torch.float32)
    with (folder / name).open("a") as file:
        file.write(" ")
    for read in (lambda: load_verifier(str(folder), CPU, torch.float32), lambda: export_published(folder, tmp_path)):
        with pytest.raises(CheckpointError, match=f"{name} is damaged or was changed"):
            read()


@pytest.mark.parametrize("part", ["transformer", "text_encoder", "vae"])
def test_a_flipped_byte_of_a_generator_is_named(tiny_generator: Path, tmp_path: Path, part: str) -> None:
    folder = copy_folder(tiny_generator, tmp_path / "copy")
    write_checksums(folder)
    (file,) = (folder / part).glob("*.safetensors")
    flip(file)
    with pytest.raises(CheckpointError, match=f"{file.name} is damaged or was changed"):
        load_generator(str(folder), CPU, torch.float32)


@pytest.mark.parametrize("part", ["generator", "language_model", "verifier"])
def test_the_shipped_weights_have_checksums(repository: Path, part: str) -> None:
    folder = repository / "src/forejudge/miniature/weights" / part
    assert (folder / CHECKSUMS_FILE).is_file()
    check_checksums(folder)


def test_the_shipped_verifier_knows_the_shipped_generator() -> None:
    generator = load_generator("miniature", CPU, torch.float32)
    assert load_verifier("miniature", CPU, torch.float32).check(generator) == []
