"""The published release's way: how often each part is called, and how a candidate is scored."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.doubles import CPU
from tests.profiling.tiny_sizes import TINY, tiny_models
from torch import nn

from forejudge.errors import InvalidRequest
from forejudge.generators import load_generator
from forejudge.generators.base import Sampling
from forejudge.generators.sana_sprint import SanaSprint
from forejudge.profiling.official import Official
from forejudge.profiling.profiled import Profiled
from forejudge.profiling.random_models import new_verifier

_OF_NOISE = {"randn_latents", "randn_step"}  # in the record: where noise comes from is this package's own


def counted(generator: SanaSprint, language_model: nn.Module) -> Counter[str]:
    """Counts the calls of every part from now on, under the names of the record."""
    calls = Counter[str]()
    parts: dict[str, Any] = {
        "text_encoder": generator.pipeline.text_encoder,
        "transformer": generator.transformer.patch_embed,
        "verifier": language_model,
        "vae_decode": generator.autoencoder.decoder,
        **{f"block_{number:02}": block for number, block in enumerate(generator.transformer.transformer_blocks)},
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda *given, name=name: calls.update([name]))
    return calls


def test_calls_are_those_of_the_release(parity: Path) -> None:
    recorded = json.loads((parity / "expected_e2e.json").read_text())
    spelling = f"{parity / 'sana-sprint-tiny'},use_resolution_binning=false"
    generator = load_generator(spelling, CPU, torch.float32)
    assert isinstance(generator, SanaSprint)
    verifier = new_verifier(TINY.verifier, "hidden:8", generator)
    calls = counted(generator, verifier.model.language_model)
    for prompt in recorded["prompts"]:
        models = Profiled(generator, {"hidden": verifier}, prompt, Sampling(height=256, width=256))
        Official(models, "hidden", most=3).run(tuple(recorded["sample_seeds"]))
    expected = {name: count for name, count in recorded["runs"]["fp32"]["calls"].items() if name not in _OF_NOISE}
    assert calls == expected


def test_every_candidate_is_encoded_and_the_winner_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch, "hidden")
    calls = counted(models.generator, models.verifiers["hidden"].model.language_model)
    Official(models, "hidden", most=3).run((1, 2, 3))
    again, judged = {"text_encoder": 4, "transformer": 4, "block_00": 4}, {"verifier": 3}
    assert calls == again | judged | {"block_01": 1, "block_02": 1, "vae_decode": 1}


def test_a_candidate_is_scored_by_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """-P(no) unless yes is the answer, then P(yes); both as the verifier itself has them."""
    models = tiny_models(monkeypatch, "hidden")
    official, verifier = Official(models, "hidden", most=1), models.verifiers["hidden"]
    candidates = models.generator.advance(models.generator.start(models.conditioning, (1,)), verifier.reads)
    (verdict,) = verifier.judge(models.prompt, candidates)
    assert verdict.p_no is not None
    assert official.judging((1,))() == [pytest.approx(-verdict.p_no, rel=1e-5)]
    make_yes_the_answer(models)
    (verdict,) = verifier.judge(models.prompt, candidates)
    assert verdict.p_yes is not None
    assert official.judging((1,))() == [pytest.approx(verdict.p_yes, rel=1e-5)]


@torch.no_grad()
def make_yes_the_answer(models: Profiled) -> None:
    """By an output layer that knows no other word."""
    verifier = models.verifiers["hidden"]
    weight_VD = verifier.model.language_model.lm_head.weight
    states_ND: list[torch.Tensor] = []
    hook = verifier.model.language_model.lm_head.register_forward_pre_hook(
        lambda module, given: states_ND.append(given[0][0])
    )
    Official(models, "hidden", most=1).judging((1,))()
    hook.remove()
    weight_VD[verifier.answers[0]] = states_ND[0][0]


def test_the_first_of_equals_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch, "hidden")
    assert Official(models, "hidden", most=1).run((2, 2, 2)).winner == 0


def test_a_verifier_that_does_not_answer_in_words_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    models = tiny_models(monkeypatch, "hidden")
    verifier = models.verifiers["hidden"]
    verifier.config = verifier.config.model_copy(update={"has_head": True})
    with pytest.raises(InvalidRequest, match=r"gives no answer in words: official cannot be run"):
        Official(models, "hidden", most=1)
