"""Generators by name: what is known, what is refused and in which words."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from forejudge import BestOfN
from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.generators import ARCHITECTURES, KNOWN_MODELS, GeneratorSpec, as_generator, known_models, load_generator
from forejudge.generators.base import Generator, SamplingParams
from forejudge.generators.known import SchedulerSpec
from forejudge.generators.loading import load_spec, offload_text_encoders
from forejudge.generators.sana_sprint import SanaSprint
from forejudge.hub import Source
from tests.support.doubles import CPU, PROMPT, load_pipeline
from tests.support.folders import copy_folder
from tests.support.hub_cache import COMMIT, add_to_cache
from tests.support.hub_server import hub_server
from tests.support.tiny import save_tiny_generator

WHOLE, OFFLOADED = None, "text-encoder"


def test_a_text_encoder_is_fetched_for_each_call_and_sent_back(
    tiny_generator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load_pipeline(tiny_generator)
    done: list[str] = []
    move, read = pipeline.text_encoder.to, pipeline.text_encoder.forward

    def to(device: torch.device) -> Any:
        done.append(str(device))
        return move(device)

    def forward(*args: Any, **kwargs: Any) -> Any:
        done.append("reads")
        return read(*args, **kwargs)

    monkeypatch.setattr(pipeline.text_encoder, "to", to)
    monkeypatch.setattr(pipeline.text_encoder, "forward", forward)
    offload_text_encoders(pipeline, torch.device("cpu:0"))  # the same place by another name
    for _ in range(2):
        pipeline.encode_prompt(PROMPT, complex_human_instruction=None)
    assert done == ["cpu:0", "reads", "cpu"] * 2


@pytest.mark.parametrize("options", ["", ",gemma_softcap=false"])
def test_what_is_encoded_is_the_same(tiny_generator: Path, options: str) -> None:
    whole, offloaded = (
        load_generator(f"{tiny_generator}{options}", CPU, torch.float32, offload).encode(PROMPT, SamplingParams())
        for offload in (WHOLE, OFFLOADED)
    )
    assert torch.equal(whole.text_NLD, offloaded.text_NLD)


def test_what_cannot_be_offloaded_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(InvalidRequest, match="offload = 'vae' is not supported: use text-encoder"):
        load_generator("owner/model", CPU, torch.float32, "vae")


@pytest.mark.gpu
def test_on_a_gpu_it_is_there_only_while_it_encodes(tiny_generator: Path, tiny_verifier: Path) -> None:
    loaded = {
        offload: BestOfN.from_pretrained(
            str(tiny_generator), str(tiny_verifier), device="cuda", dtype="float32", offload=offload
        )
        for offload in (WHOLE, OFFLOADED)
    }
    images = {offload: best(PROMPT, n=2, seed=3).image.tobytes() for offload, best in loaded.items()}
    assert images[WHOLE] == images[OFFLOADED]
    generator: Any = loaded[OFFLOADED].generator
    assert generator.pipeline.text_encoder.device == CPU
    assert generator.device.type == generator.autoencoder.device.type == "cuda"


def load(folder: Path | str) -> None:
    load_generator(str(folder), CPU, torch.float32)


@pytest.fixture
def folder(tiny_generator: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return copy_folder(tiny_generator, tmp_path / "generator")


def test_a_folder_is_loaded_by_the_class_of_its_pipeline(tiny_generator: Path) -> None:
    generator = load_generator(str(tiny_generator), CPU, torch.bfloat16)
    assert isinstance(generator, SanaSprint)
    assert generator.name == str(tiny_generator)
    assert (generator.device, generator.dtype) == (CPU, torch.bfloat16)
    assert generator.autoencoder.dtype == generator.pipeline.text_encoder.dtype == torch.bfloat16


def test_a_cached_generator_is_loaded_without_a_network(
    tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = add_to_cache(tmp_path, "owner/tiny", tiny_generator)
    for name, revision in (("owner/tiny", None), ("owner/tiny@main", "main"), (f"owner/tiny@{COMMIT}", COMMIT)):
        generator = load_generator(name, CPU, torch.float32)
        assert isinstance(generator, SanaSprint)
        assert generator.name == name
        assert generator.sources == (Source("owner/tiny", snapshot, revision, COMMIT),)
        assert generator.options.complex_human_instruction is None  # as the folder's own forejudge.json says
    with pytest.raises(CheckpointError, match="owner/tiny@v2 cannot be loaded: HF_HUB_OFFLINE is set"):
        load("owner/tiny@v2")


def test_only_what_a_pipeline_names_is_downloaded(
    folder: Path, tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for needless in ("all-in-one.safetensors", "unused/model.safetensors", "vae/model.fp16.safetensors", "vae/vae.py"):
        (folder / needless).parent.mkdir(exist_ok=True)
        (folder / needless).write_text("not asked for")
    with hub_server(monkeypatch) as hub:
        hub.models["owner/tiny"] = folder
        load("owner/tiny")
        whole = {path.relative_to(tiny_generator).as_posix() for path in tiny_generator.rglob("*.*") if path.is_file()}
        assert sorted(hub.sent_files) == sorted(whole)  # each of them once, forejudge.json among them


def test_no_weights_are_downloaded_for_a_generator_without_them(
    tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    spec = GeneratorSpec(name="mixed", pipeline="owner/base", transformer="owner/few-step", description="")
    monkeypatch.setitem(KNOWN_MODELS, "mixed", spec)
    with hub_server(monkeypatch) as hub:
        hub.models.update({"owner/base": tiny_generator, "owner/few-step": tiny_generator})
        load_generator("mixed", torch.device("meta"), torch.float32).check(PROMPT, SamplingParams())
        assert not [name for name in hub.sent_files if name.endswith(".safetensors")]
        assert hub.sent_files.count("tokenizer/tokenizer.json") == 1


def test_of_two_repositories_each_gives_its_part(
    tiny_generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    weights = "transformer/diffusion_pytorch_model.safetensors"
    spec = GeneratorSpec(name="mixed", pipeline="owner/base", transformer="owner/few-step", description="")
    monkeypatch.setitem(KNOWN_MODELS, "mixed", spec)
    with hub_server(monkeypatch) as hub:
        hub.models.update({"owner/base": tiny_generator, "owner/few-step": tiny_generator})
        generator = load_generator("owner/few-step@main", CPU, torch.float32)
        assert hub.sent_files.count(weights) == 1
    found = [(source.model, source.revision) for source in generator.sources]
    assert found == [("owner/base", None), ("owner/few-step", "main")]


class TestSpec:
    """Fields of a spec beyond the folder of a pipeline."""

    def load(self, **spec: object) -> Generator:
        return load_spec(GeneratorSpec.model_validate({"name": "tiny", "description": "", **spec}), CPU, torch.float32)

    def test_the_transformer_may_come_from_elsewhere(self, tiny_generator: Path, tmp_path: Path) -> None:
        other = save_tiny_generator(tmp_path / "other", seed=7)
        whole, base = (
            load_generator(str(other), CPU, torch.float32),
            load_generator(str(tiny_generator), CPU, torch.float32),
        )
        mixed = [
            self.load(pipeline=str(tiny_generator), transformer=str(place)) for place in (other, other / "transformer")
        ]
        for found, place in zip(mixed, (other, other / "transformer"), strict=True):
            assert [source.model for source in found.sources] == [str(tiny_generator), str(place)]
        assert mixed[0].fingerprint == mixed[1].fingerprint
        assert len({mixed[0].fingerprint, whole.fingerprint, base.fingerprint}) == 3

    def test_a_pipeline_without_a_transformer_takes_another_s(self, folder: Path, tiny_generator: Path) -> None:
        shutil.rmtree(folder / "transformer")
        self.load(pipeline=str(folder), transformer=str(tiny_generator))
        with pytest.raises(CheckpointError, match="transformer is missing"):
            self.load(pipeline=str(folder))

    def test_the_scheduler_may_be_changed(self, tiny_generator: Path) -> None:
        changed = SchedulerSpec(class_name="SCMScheduler", config={"sigma_data": 0.25})
        generator = self.load(pipeline=str(tiny_generator), scheduler=changed)
        assert isinstance(generator, SanaSprint)
        assert generator.sigma_data == 0.25

    def test_its_options_stand_between_those_asked_for_and_the_folder_s(
        self, tiny_generator: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spec = {"name": "tiny", "pipeline": str(tiny_generator), "description": "", "options": {"max_timesteps": 1.5}}
        monkeypatch.setitem(KNOWN_MODELS, "tiny", GeneratorSpec.model_validate(spec))
        for name, expected in (("tiny", 1.5), ("tiny,max_timesteps=1.25", 1.25)):
            generator = load_generator(name, CPU, torch.float32)
            assert isinstance(generator, SanaSprint)
            assert (generator.name, generator.options.max_timesteps) == (name, expected)
            assert generator.options.complex_human_instruction is None

    def test_its_sampling_params_are_the_defaults(self, tiny_generator: Path) -> None:
        assert self.load(pipeline=str(tiny_generator), sampling=SamplingParams(steps=2)).defaults == SamplingParams(
            steps=2
        )


@pytest.mark.parametrize("library", ["my_blocks", "os"])
def test_code_that_comes_with_a_pipeline_is_refused(folder: Path, library: str) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "transformer": [library, "Transformer"]}))
    (folder / "transformer" / "my_blocks.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    assert_named(folder, "asks for code of its own")
    assert not (folder / "ran").exists()


def test_loading_says_nothing(tiny_generator: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(tiny_generator)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["minature", "no such thing", "a/b/c"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidRequest, match=f"unknown generator '{name}'.*{', '.join(known_models())}"):
        load(name)


def test_a_hub_id_that_cannot_be_had_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no-owner/no-model cannot be loaded") as caught:
        load("no-owner/no-model")
    assert "\n" not in str(caught.value)


def test_an_unsupported_pipeline_is_refused(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(
        InvalidRequest,
        match=f"holds a StableDiffusionPipeline, which is not supported: use one of {', '.join(ARCHITECTURES)}",
    ):
        load(folder)
    with pytest.raises(InvalidRequest, match=f"object is not supported: use one of {', '.join(ARCHITECTURES)}"):
        as_generator(object())


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"_class_name": 3, "vae": 4}'])
def test_a_model_index_that_says_nothing_is_refused(folder: Path, text: str) -> None:
    (folder / "model_index.json").write_text(text)
    with pytest.raises((CheckpointError, InvalidRequest), match=re.escape(str(folder))):
        load(folder)


@pytest.mark.parametrize(
    "missing",
    [
        "model_index.json",
        "transformer",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_folder_with_a_missing_part_is_refused(folder: Path, missing: str) -> None:
    (folder / missing).rename(folder.parent / "moved away")
    assert_named(folder)


@pytest.mark.parametrize(
    "truncated",
    [
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
        "forejudge.json",
    ],
)
def test_a_folder_with_a_truncated_file_is_refused(folder: Path, truncated: str) -> None:
    content = (folder / truncated).read_bytes()
    (folder / truncated).write_bytes(content[: len(content) // 2])
    assert_named(folder)


def assert_named(folder: Path, said: str = "") -> None:
    """Refused in one line that names the folder."""
    with pytest.raises(CheckpointError, match=re.escape(str(folder))) as caught:
        load(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
