"""Stage 1: the connector learns to be put into words, and nothing else is touched."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forejudge.candidates.features import States
from forejudge.candidates.store import CandidateStore
from forejudge.errors import CheckpointError
from forejudge.training.align import align, caption_loss
from forejudge.training.dataset import IGNORE_INDEX, CaptionBatches
from forejudge.training.model import Alignment, set_statistics
from forejudge.verifiers.language_model import LanguageModelVerifier, YesNoModel
from forejudge.verifiers.question import Question
from tests.support.tiny_run import TinyRun, save_language_model, weights

LONGER: dict[str, Any] = {"steps": 40, "batch_size": 32, "learning_rate": 1e-2, "eval_steps": 20}


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["eval_loss"] for line in lines if "eval_loss" in line]


def test_only_the_connector_learns(tiny_run: TinyRun, tmp_path: Path) -> None:
    generator = tiny_run.generator
    models = {"transformer": generator.transformer, "autoencoder": generator.autoencoder}  # type: ignore[attr-defined]
    before = {name: {k: v.clone() for k, v in part.state_dict().items()} for name, part in models.items()}
    recipe = tiny_run.align_recipe()
    align(recipe, generator, tiny_run.data, tmp_path / "out", lambda _: None)
    for name, part in models.items():
        assert all(torch.equal(tensor, before[name][key]) for key, tensor in part.state_dict().items()), name
    begun_with = load_file(tiny_run.folder / "language_model" / "model.safetensors")
    left = load_file(tmp_path / "out" / "language_model" / "model.safetensors")
    assert left.keys() == begun_with.keys()
    assert all(torch.equal(tensor, begun_with[name]) for name, tensor in left.items())


def test_a_connector_that_is_trained_longer_is_another_one(aligned: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    untrained = weights(tiny_run.align(tmp_path / "untrained", learning_rate=1e-12))
    trained = weights(aligned)
    for name in ("layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"):
        distance = (trained[f"connector.safetensors/{name}"] - untrained[f"connector.safetensors/{name}"]).abs().max()
        assert distance > 1e-4, name


def test_it_learns_to_say_captions(tiny_run: TinyRun, tmp_path: Path) -> None:
    """Those of held-out candidates, of whose words a language model that knows none would guess one in 527."""
    language_model = str(save_language_model(tmp_path / "language_model", scale=10))
    found = losses(tiny_run.align(tmp_path / "out", language_model=language_model, **LONGER))
    assert found[-1] < 0.75 * math.log(527)


def test_the_connector_standardises_by_what_it_was_trained_on(tiny_run: TinyRun, aligned: Path) -> None:
    hidden_MD = load_file(CandidateStore(tiny_run.training).states_path(0))["hidden:2"].float().flatten(0, 1)
    connector = load_file(aligned / "connector.safetensors")
    torch.testing.assert_close(connector["mean_D"], hidden_MD.mean(0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(connector["variance_D"], hidden_MD.var(0, unbiased=False), atol=1e-5, rtol=1e-5)


def test_a_language_model_that_is_not_finite_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    """It would look like a training that diverged."""
    language_model = save_language_model(tmp_path / "language_model", scale=math.nan)
    with pytest.raises(CheckpointError, match=r"language_model holds weights that are not finite: get the language"):
        tiny_run.align(tmp_path / "out", language_model=str(language_model))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("statistics", [(math.nan, 1.0), (0.0, math.inf)])
def test_states_that_are_not_finite_are_refused(aligned: Path, statistics: tuple[float, float]) -> None:
    verifier = LanguageModelVerifier.from_pretrained(aligned)
    mean_D, variance_D = (torch.full((verifier.model.connector.width,), value) for value in statistics)
    with pytest.raises(CheckpointError, match="states of the training candidates are not finite"):
        set_statistics(verifier.model.connector, (mean_D, variance_D))


@pytest.mark.parametrize(("captions", "column"), [("new", "caption"), ("original", "prompt")])
def test_what_is_to_be_said_is_chosen(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, captions: str, column: str
) -> None:
    said: list[list[str]] = []

    def remembered(states: States, instruction: Question, texts: list[str]) -> CaptionBatches:
        said.append(texts)
        return CaptionBatches(states, instruction, texts)

    monkeypatch.setattr("forejudge.training.align.CaptionBatches", remembered)
    tiny_run.align(tmp_path / "out", captions=captions, steps=1, eval_steps=1)
    folders = (tiny_run.training, tiny_run.validation)
    assert said == [CandidateStore(folder).table()[column].to_pylist() for folder in folders]


@pytest.mark.slow
def test_gradient_checkpointing_changes_no_weight(tiny_run: TinyRun, aligned: Path, tmp_path: Path) -> None:
    checkpointed = weights(tiny_run.align(tmp_path / "out", gradient_checkpointing=True))
    for name, tensor in weights(aligned).items():
        torch.testing.assert_close(checkpointed[name], tensor, atol=1e-5, rtol=0)


def test_gradient_checkpointing_is_switched_on(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched: list[bool] = []

    def remembered(model: YesNoModel) -> Alignment:
        switched.append(model.language_model.model.layers[0].gradient_checkpointing)
        return Alignment(model)

    monkeypatch.setattr("forejudge.training.align.Alignment", remembered)
    tiny_run.align(tmp_path / "out", gradient_checkpointing=True, steps=1, eval_steps=1)
    assert switched == [True]


def test_what_is_left_reads_as_the_recipe_says(tiny_run: TinyRun, aligned: Path) -> None:
    verifier = LanguageModelVerifier.from_pretrained(aligned)
    assert verifier.config.reads == "hidden:2"
    assert verifier.config.generator_fingerprint == tiny_run.generator.fingerprint
    assert not verifier.calibrated


def test_the_loss_counts_captions_only() -> None:
    logits_NLV = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    labels_NL = torch.tensor([[IGNORE_INDEX, 1, 4], [IGNORE_INDEX, IGNORE_INDEX, 2]])
    log_p = logits_NLV.log_softmax(-1)
    expected = -(log_p[0, 1, 1] + log_p[0, 2, 4] + log_p[1, 2, 2])
    torch.testing.assert_close(caption_loss({"logits_NLV": logits_NLV}, labels_NL), expected)
