"""Text encoders that wait on the CPU: where they are and when, and that nothing else changes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.doubles import CPU, PROMPT, load_pipeline

from forejudge import BestOfN
from forejudge.errors import InvalidRequest
from forejudge.generators import load_generator
from forejudge.generators.base import Sampling
from forejudge.generators.offload import offload_text_encoders

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
        load_generator(f"{tiny_generator}{options}", CPU, torch.float32, offload).encode(PROMPT, Sampling())
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
    pictures = {offload: best(PROMPT, n=2, seed=3).image.tobytes() for offload, best in loaded.items()}
    assert pictures[WHOLE] == pictures[OFFLOADED]
    generator: Any = loaded[OFFLOADED].generator
    assert generator.pipeline.text_encoder.device == CPU
    assert generator.device.type == generator.autoencoder.device.type == "cuda"
