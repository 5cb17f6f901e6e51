"""Models of random weights: as large as their sizes, the same each time, refused without known sizes."""

from typing import Any

import pytest
import torch

from forejudge.best_of_n import BestOfN
from forejudge.errors import InvalidRequest
from forejudge.profiling.sizes import KINDS, random_models
from tests.support.doubles import CPU
from tests.support.tiny_sizes import TINY, tiny_models


def test_every_model_reads_as_many_tokens_as_its_sizes_say(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch, "hidden")
    read: list[int] = []
    text_encoder: Any = models.generator.modules()["text_encoder"]
    language_model = models.verifiers["hidden"].model
    text_encoder.layers[0].register_forward_pre_hook(lambda module, given: read.append(given[0].shape[1]))
    decoder = language_model.language_model.model.layers[0]
    decoder.register_forward_pre_hook(lambda module, given: read.append(given[0].shape[1]))
    models.generator.encode(models.prompt, models.sampling)
    BestOfN(models.generator, models.verifiers["hidden"])(models.prompt, 1)
    instruction, prompt = TINY.generator.text_tokens - 298, len(models.prompt.replace(" ", "▁").encode())
    question = 2 * 2 + TINY.verifier.question_tokens
    assert read == [TINY.generator.text_tokens, instruction, prompt, question]


def test_weights_are_made_in_the_dtype_and_are_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    expected = torch.rand(())
    torch.manual_seed(7)
    one, other = (tiny_models(monkeypatch, dtype=torch.bfloat16) for _ in range(2))
    assert torch.rand(()) == expected, "random numbers of others are not used up"
    assert torch.get_default_dtype() == torch.float32
    assert one.generator.fingerprint == other.generator.fingerprint
    for kind in KINDS:
        assert one.verifiers[kind].digest == other.verifiers[kind].digest
        assert {weight.dtype for weight in one.verifiers[kind].model.parameters()} == {torch.bfloat16}
    parts = one.generator.modules().values()
    assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.bfloat16}


def test_a_verifier_that_sees_images_keeps_a_tower_besides(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch)
    assert models.weight_bytes("clip") > 1.05 * models.weight_bytes("hidden")
    assert models.weight_bytes("latent") == pytest.approx(models.weight_bytes("hidden"), rel=0.02)


def test_the_text_encoder_and_the_decoder_are_counted_as_resident(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch, "hidden")
    parts = models.generator.modules()
    modules = [parts[name] for name in ("text_encoder", "vae", "transformer")] + [models.verifiers["hidden"].model]
    assert models.weight_bytes("hidden") == sum(4 * each.numel() for part in modules for each in part.parameters())


@pytest.mark.parametrize(
    ("name", "kinds", "said"),
    [
        (
            "sana-sprint-9b",
            KINDS,
            "no sizes are known for generator 'sana-sprint-9b': with --random-weights use one of sana-sprint",
        ),
        (
            "sana-sprint-small",
            ("hidden", "pixels"),
            "no verifier reads 'pixels': with --random-weights use one of hidden",
        ),
    ],
)
def test_what_is_not_known_is_refused(name: str, kinds: tuple[str, ...], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        random_models(name, kinds, None, CPU, torch.float32)
