"""Model folders are read strictly: what is wrong is refused in one line that names it."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderDC, PixArtTransformer2DModel, SanaTransformer2DModel
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, Gemma2Model, Qwen2ForCausalLM, T5Tokenizer
from transformers.utils import logging as transformers_logging

from forejudge.checkpoint import check_safetensors, checkpoint_errors, load_weights, quiet_libraries, weights_digest
from forejudge.errors import CheckpointError, InvalidRequest, MissingExtra
from forejudge.library_models import PICKLED_WEIGHTS, load_library_model, load_tokenizer
from tests.support.folders import copy_folder
from tests.support.hub_cache import add_to_cache
from tests.support.tiny_pixart import new_transformer

Change = Callable[[dict[str, Tensor]], object]


WRONG_TENSORS: list[tuple[Change, str]] = [
    (lambda tensors: tensors.pop("weight"), "tensor weight is missing"),
    (lambda tensors: tensors.update(scale=torch.ones(2)), "tensor scale is not part of the model"),
    (lambda tensors: tensors.update(weight=torch.ones(3, 7)), r"tensor weight has shape (3, 7), expected (3, 2)"),
]


@pytest.mark.parametrize(("change", "said"), WRONG_TENSORS)
def test_a_wrong_tensor_of_a_module_is_named(tmp_path: Path, change: Change, said: str) -> None:
    path = tmp_path / "layer.safetensors"
    tensors = dict(nn.Linear(2, 3).state_dict())
    change(tensors)
    save_file(tensors, path)
    assert_refused(lambda: load_weights(nn.Linear(2, 3), path), f"{path}: {said}")


def test_a_truncated_or_missing_module_is_named(tmp_path: Path) -> None:
    path = tmp_path / "layer.safetensors"
    save_file(nn.Linear(2, 3).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-4])
    assert_refused(lambda: load_weights(nn.Linear(2, 3), path), f"{path} cannot be loaded")
    path.unlink()
    assert_refused(lambda: load_weights(nn.Linear(2, 3), path), f"{path} cannot be loaded")


def test_a_module_is_filled(tmp_path: Path) -> None:
    saved, filled = nn.Linear(2, 3), nn.Linear(2, 3)
    save_file(saved.state_dict(), tmp_path / "layer.safetensors")
    load_weights(filled, tmp_path / "layer.safetensors")
    assert torch.equal(filled.weight, saved.weight)


# Both libraries would put noise in the place of what is missing, and say so in a log.
LIBRARY_MODELS = [
    (SanaTransformer2DModel, "generator/transformer", "diffusion_pytorch_model.safetensors"),
    (AutoencoderDC, "generator/vae", "diffusion_pytorch_model.safetensors"),
    (Gemma2Model, "generator/text_encoder", "model.safetensors"),
    (AutoModelForCausalLM, "verifier/language_model", "model.safetensors"),
]


@pytest.mark.parametrize(("kind", "part", "weights"), LIBRARY_MODELS)
class TestLibraryModel:
    @pytest.fixture
    def folder(self, tiny_verifier: Path, part: str, tmp_path: Path) -> Path:
        return copy_folder(tiny_verifier.parent / part, tmp_path / "model")

    def load(self, kind: Any, folder: Path, allow_unexpected_keys: bool = False) -> nn.Module:
        return load_library_model(kind, folder, torch.float32, allow_unexpected_keys=allow_unexpected_keys)

    def test_a_wrong_tensor_is_named(self, kind: Any, folder: Path, weights: str) -> None:
        tensors = load_file(folder / weights)
        name = next(name for name, tensor in tensors.items() if tensor.ndim > 1 and "embed" not in name)
        shape = tuple(tensors[name].shape)
        wrong: list[tuple[dict[str, Tensor | None], str]] = [
            ({name: None}, f"tensor {name} is missing"),
            ({"other.weight": torch.ones(2)}, "tensor other.weight is not part of the model"),
            ({name: torch.ones(5, 7)}, f"tensor {name} has shape (5, 7), expected {shape}"),
        ]
        for change, said in wrong:
            changed = {key: tensor for key, tensor in (tensors | change).items() if tensor is not None}
            save_file(changed, folder / weights, metadata={"format": "pt"})
            expected = "expected weights and config.json of one model: get both again"
            assert_refused(lambda: self.load(kind, folder), f"{folder}: {said}; {expected}")

    def test_an_extra_tensor_may_be_allowed(self, kind: Any, folder: Path, weights: str) -> None:
        extra = load_file(folder / weights) | {"other.weight": torch.ones(2)}
        save_file(extra, folder / weights, metadata={"format": "pt"})
        self.load(kind, folder, allow_unexpected_keys=True)

    def test_a_truncated_or_missing_file_is_named(self, kind: Any, folder: Path, weights: str) -> None:
        complete = (folder / weights).read_bytes()
        (folder / weights).write_bytes(complete[: len(complete) // 2])
        assert_refused(
            lambda: self.load(kind, folder), f"{folder / weights} cannot be loaded: it is missing, truncated"
        )
        (folder / weights).unlink()
        assert_refused(lambda: self.load(kind, folder), f"{folder} holds no .safetensors file; other formats can run")
        (folder / weights).write_bytes(complete)
        (folder / "config.json").write_text("{")
        assert_refused(lambda: self.load(kind, folder), f"{folder / 'config.json'} cannot be loaded")
        assert_refused(lambda: self.load(kind, folder / "nowhere"), f"{folder / 'nowhere'} is missing")


def test_a_truncated_file_of_the_hub_s_cache_is_named_with_what_to_delete(tiny_verifier: Path, tmp_path: Path) -> None:
    snapshot = add_to_cache(tmp_path, "owner/model", tiny_verifier / "language_model")
    blob = (snapshot / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=f"delete {blob} and get it again") as caught:
        load_library_model(AutoModelForCausalLM, snapshot, torch.float32)
    assert str(caught.value).startswith(f"{snapshot / 'model.safetensors'} cannot be loaded")


def test_code_that_comes_with_a_model_is_left_alone_where_the_library_knows_the_model(
    tiny_verifier: Path, tmp_path: Path
) -> None:
    folder = copy_folder(tiny_verifier / "language_model", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "code.py").write_text("from pathlib import Path\nPath(__file__).with_name('was_run').touch()\n")
    assert isinstance(load_library_model(AutoModelForCausalLM, folder, torch.float32), Qwen2ForCausalLM)
    assert not (folder / "was_run").exists()


def test_libraries_are_quiet_only_while_they_load(capfd: pytest.CaptureFixture[str]) -> None:
    libraries: list[Any] = [diffusers_logging, transformers_logging]
    before = [library.get_verbosity() for library in libraries]
    for library in libraries:
        library.set_verbosity(library.INFO)
        library.enable_progress_bar()
    try:
        with quiet_libraries():
            diffusers_logging.get_logger("diffusers.test").error("unheard")
            assert not any(library.is_progress_bar_enabled() for library in libraries)
        assert [library.get_verbosity() for library in libraries] == [library.INFO for library in libraries]
        assert all(library.is_progress_bar_enabled() for library in libraries)
    finally:
        for library, verbosity in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
    assert "unheard" not in capfd.readouterr().err


@pytest.mark.parametrize("package", ["sentencepiece", "protobuf"])
def test_a_sentencepiece_model_names_the_extra_that_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    (tmp_path / "spiece.model").touch()
    for known in ("sentencepiece", "protobuf"):
        monkeypatch.setattr(f"transformers.utils.is_{known}_available", lambda is_there=known != package: is_there)
    with pytest.raises(MissingExtra, match=rf"{package} is not installed: pip install 'forejudge\[sentencepiece\]'"):
        load_tokenizer(T5Tokenizer, tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"null", "it holds no JSON object"),
        (b'{"size": 123456789012345678901}', "123456789012345678901 is too large"),
        (b'{"name": "\xe9"}', "'utf-8' codec can't decode byte 0xe9"),
        (b"[" * 100_000, "maximum recursion depth exceeded"),
    ],
)
def test_the_broken_file_of_a_folder_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_bytes(content)
    (tmp_path / "a_whole_one.json").write_text('{"size": 1}')

    def load() -> None:
        with checkpoint_errors(tmp_path):
            raise TypeError("what a library says")

    file = tmp_path / "vae" / "config.json"
    assert_refused(load, f"{file} cannot be loaded: it is missing, truncated or of another type ({problem}")


def test_an_error_of_ours_keeps_its_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="said already"), checkpoint_errors(tmp_path):
        raise InvalidRequest("said already")


class TestPickledWeights:
    """Diffusers' models whose weights are published as a pickle alone."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        new_transformer().save_pretrained(tmp_path, safe_serialization=False)
        return tmp_path

    def load(self, folder: Path) -> nn.Module:
        return load_library_model(PixArtTransformer2DModel, folder, torch.float32)

    def test_tensors_are_read_strictly(self, folder: Path) -> None:
        weights = torch.load(folder / PICKLED_WEIGHTS, weights_only=True)
        assert all(torch.equal(tensor, weights[name]) for name, tensor in self.load(folder).state_dict().items())
        weights.pop("proj_out.bias")
        torch.save(weights, folder / PICKLED_WEIGHTS)
        assert_refused(lambda: self.load(folder), f"{folder}: tensor proj_out.bias is missing")

    def test_safetensors_beside_it_are_taken(self, folder: Path) -> None:
        new_transformer().save_pretrained(folder)
        (folder / PICKLED_WEIGHTS).write_text("not looked at")
        self.load(folder)

    def test_its_code_is_not_run(self, folder: Path) -> None:
        class Malicious:
            def __reduce__(self) -> tuple[Any, ...]:
                return Path.touch, (folder / "ran",)

        torch.save({"proj_out.bias": Malicious()}, folder / PICKLED_WEIGHTS)
        assert_refused(lambda: self.load(folder), f"{folder / PICKLED_WEIGHTS} cannot be loaded: it asks for code")
        assert not (folder / "ran").exists()

    @pytest.mark.parametrize("content", [{"proj_out.bias": 3}, [torch.ones(1)], {"state_dict": {}}])
    def test_anything_but_tensors_is_refused(self, folder: Path, content: object) -> None:
        torch.save(content, folder / PICKLED_WEIGHTS)
        assert_refused(lambda: self.load(folder), str(folder))

    def test_no_index_leads_elsewhere(self, folder: Path) -> None:
        (folder / f"{PICKLED_WEIGHTS}.index.json").write_text("{}")
        assert_refused(lambda: self.load(folder), f"{folder} holds no .safetensors file")

    @pytest.mark.parametrize("others", [(), ("pytorch_model.bin",)])
    def test_it_opens_no_door_to_pickles_of_transformers(
        self, tiny_verifier: Path, tmp_path: Path, others: tuple[str, ...]
    ) -> None:
        shutil.copyfile(tiny_verifier / "language_model" / "config.json", tmp_path / "config.json")
        for name in (PICKLED_WEIGHTS, *others):
            torch.save({}, tmp_path / name)
        load = partial(load_library_model, AutoModelForCausalLM, tmp_path, torch.float32)
        assert_refused(load, f"{tmp_path} holds no .safetensors file")

    def test_a_truncated_one_is_named(self, folder: Path) -> None:
        path = folder / PICKLED_WEIGHTS
        path.write_bytes(path.read_bytes()[:1000])
        assert_refused(lambda: self.load(folder), str(path))


def assert_refused(load: Callable[[], object], said: str) -> None:
    """In one line that begins with what was said."""
    with pytest.raises(CheckpointError) as caught:
        load()
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_weights_have_a_digest_of_their_own(tmp_path: Path) -> None:
    assert_refused(lambda: weights_digest(tmp_path), f"{tmp_path} holds no .safetensors file")
    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    one = weights_digest(tmp_path)
    save_file({"weight": torch.ones(2)}, tmp_path / "b.safetensors")
    both = weights_digest(tmp_path)
    assert len(one) == 16
    assert one != both
    (tmp_path / "b.safetensors").unlink()
    assert weights_digest(tmp_path) == one


def test_a_file_is_not_called_broken_where_memory_has_no_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def map_file(*arguments: object) -> None:
        raise OSError("Cannot allocate memory (os error 12)")

    monkeypatch.setattr("forejudge.checkpoint.safe_open", map_file)
    with pytest.raises(MemoryError):
        check_safetensors(tmp_path / "model.safetensors")
    for error in (MemoryError(), RuntimeError("unable to mmap 8 bytes from file <x>: Cannot allocate memory (12)")):
        with pytest.raises(MemoryError), checkpoint_errors(tmp_path):
            raise error
