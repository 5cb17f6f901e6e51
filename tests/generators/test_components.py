"""Components of a pipeline that are missing, damaged or do not fit each other are named in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler, SCMScheduler
from peft import LoraConfig

from forejudge.errors import CheckpointError, InvalidRequest
from forejudge.generators import as_generator, load_generator
from forejudge.generators.base import SamplingParams
from forejudge.generators.components import load_scheduler
from forejudge.library_models import load_tokenizer
from tests.support.doubles import load_pipeline

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_generator: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(tiny_generator, tmp_path / "pipeline"))


def change(path: Path, **fields: Any) -> None:
    """Set fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(folder: Path) -> str:
    """The one line with which a pipeline is refused."""
    with pytest.raises(CheckpointError) as caught:
        load_generator(str(folder), CPU, torch.float32)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("entry", [None, [], ["diffusers"], ["diffusers", 3], [None, "AutoencoderDC"]])
def test_an_entry_of_the_index_is_named(folder: Path, entry: Any) -> None:
    change(folder / "model_index.json", vae=entry)
    assert f"model_index.json: vae = {entry!r}: expected library and class" in refusal(folder)


@pytest.mark.parametrize("component", ["scheduler", "tokenizer", "text_encoder", "vae", "transformer"])
def test_a_missing_component_is_named(folder: Path, component: str, tiny_generator: Path) -> None:
    shutil.rmtree(folder / component)
    assert refusal(folder).startswith(f"{folder / component} is missing: model_index.json names")
    change(folder / "model_index.json", **{component: [None, None]})
    assert f"names no {component}, which a SanaSprintPipeline needs" in refusal(folder)
    pipeline = load_pipeline(tiny_generator)
    setattr(pipeline, component, None)
    with pytest.raises(InvalidRequest, match=f"has no {component}: a SanaSprintPipeline cannot generate without it"):
        as_generator(pipeline)


@pytest.mark.parametrize("sharded", [False, True])
def test_weights_that_are_there_as_a_variant_only_are_loaded(folder: Path, tiny_generator: Path, sharded: bool) -> None:
    pipeline = load_pipeline(tiny_generator)
    shutil.rmtree(folder / "transformer")
    pipeline.transformer.save_pretrained(
        folder / "transformer", variant="fp16", max_shard_size="200KB" if sharded else "1GB"
    )
    (folder / "vae" / WEIGHTS).rename(folder / "vae" / WEIGHTS.replace(".safetensors", ".fp16.safetensors"))
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1 or not sharded
    expected = load_generator(str(tiny_generator), CPU, torch.float32)
    assert load_generator(str(folder), CPU, torch.float32).fingerprint == expected.fingerprint


def test_several_variants_are_refused(folder: Path) -> None:
    weights = folder / "vae" / WEIGHTS
    shutil.copy(weights, weights.with_suffix(".bf16.safetensors"))
    weights.rename(weights.with_suffix(".fp16.safetensors"))
    assert "holds its weights only as the variants bf16, fp16: keep the files of one" in refusal(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_train_timesteps", "1000"),
        ("num_train_timesteps", -5),
        ("num_train_timesteps", 10**15),
        ("sigma_data", None),
        ("sigma_data", -0.5),
        ("prediction_type", 3),
    ],
)
def test_a_field_of_the_scheduler_is_named(folder: Path, field: str, value: Any) -> None:
    change(folder / "scheduler" / "scheduler_config.json", **{field: value})
    assert f"scheduler_config.json: {field} = {value!r}: Input should be" in refusal(folder)


@pytest.mark.parametrize("text", ["[]", "null", "3"])
def test_a_scheduler_config_that_is_no_object_is_named(folder: Path, text: str) -> None:
    (folder / "scheduler" / "scheduler_config.json").write_text(text)
    assert "scheduler_config.json holds no JSON object" in refusal(folder)


@pytest.mark.parametrize("scheduler", [DDPMScheduler(trained_betas=[0.1, 0.2]), FlowMatchEulerDiscreteScheduler()])
def test_what_schedulers_save_is_valid(scheduler: Any, tmp_path: Path) -> None:
    scheduler.save_pretrained(tmp_path)
    assert load_scheduler(type(scheduler), tmp_path).config == type(scheduler).from_pretrained(tmp_path).config


@pytest.mark.parametrize("scheduler", [DDPMScheduler(), SCMScheduler(prediction_type="epsilon")])
def test_another_scheduler_is_refused(tiny_generator: Path, scheduler: Any) -> None:
    pipeline = load_pipeline(tiny_generator)
    pipeline.scheduler = scheduler
    with pytest.raises(InvalidRequest, match=r"with prediction_type = 'epsilon' is not supported: give .* SCMSched"):
        as_generator(pipeline)


@pytest.mark.parametrize("value", ["512", [1], {}, 0, -1])
def test_a_length_that_is_no_number_is_named(folder: Path, value: Any) -> None:
    change(folder / "tokenizer" / "tokenizer_config.json", model_max_length=value)
    assert f"tokenizer_config.json: model_max_length = {value!r}: expected a number" in refusal(folder)


def test_no_length_and_the_largest_are_taken(folder: Path) -> None:
    from transformers import GemmaTokenizer

    for value in (None, 10**30):
        change(folder / "tokenizer" / "tokenizer_config.json", model_max_length=value)
        assert load_tokenizer(GemmaTokenizer, folder / "tokenizer").model_max_length >= 10**30


def test_a_tokenizer_that_the_text_encoder_does_not_embed_is_refused(tiny_generator: Path) -> None:
    pipeline = load_pipeline(tiny_generator)
    rows = len(pipeline.text_encoder.get_input_embeddings().weight)
    pipeline.tokenizer.add_tokens([f"<{number}>" for number in range(rows)])
    with pytest.raises(CheckpointError, match=f"but Gemma2Model embeds {rows} tokens"):
        as_generator(pipeline)


def test_a_text_encoders_adapter_is_scaled(tiny_generator: Path) -> None:
    pipeline = load_pipeline(tiny_generator)
    sampling = [SamplingParams(lora_scale=scale) for scale in (0.0, 0.5, 1.0)]
    torch.manual_seed(0)
    pipeline.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    generator = as_generator(pipeline, options={"complex_human_instruction": ["an image of"]})
    plain = as_generator(load_pipeline(tiny_generator), options={"complex_human_instruction": ["an image of"]})
    digest = generator.fingerprint
    for one in (generator.encode, generator.encode_without_padding):
        none, half, whole = (one("a star", each).text_NLD for each in sampling)
        assert not torch.equal(none, half)
        assert not torch.equal(half, whole)
        torch.testing.assert_close(none, getattr(plain, one.__name__)("a star", sampling[2]).text_NLD)
        assert torch.equal(one("a star", sampling[2]).text_NLD, whole), "a scale of 0 is undone"
    assert generator.fingerprint == digest
