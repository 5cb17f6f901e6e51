"""A new verifier input and a new verifier class: one class and one row of a table each."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from forejudge import BestOfN
from forejudge.errors import CheckpointError, InvalidRequest, MismatchError
from forejudge.generators import load_generator
from forejudge.generators.base import Generator
from forejudge.verifiers import VERIFIER_CLASSES, load_verifier
from forejudge.verifiers.config import Calibration
from forejudge.verifiers.inputs import VERIFIER_INPUTS, build_verifier_input
from tests.support.command import CommandLine
from tests.support.doubles import CPU, PROMPT
from tests.support.probe import MlpProbe, MlpProbeConfig, MlpProbeVerifier, PooledStateInput


@pytest.fixture
def generator(tiny_generator: Path) -> Generator:
    return load_generator(str(tiny_generator), CPU, torch.float32)


@pytest.fixture
def probe(generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Add the two rows, and save an untrained probe to a folder."""
    monkeypatch.setitem(VERIFIER_INPUTS, "pooled", PooledStateInput)
    monkeypatch.setitem(VERIFIER_CLASSES, "mlp_probe", "tests.support.probe:MlpProbeVerifier")
    torch.manual_seed(0)
    calibration = Calibration(temperature=2.0, bias=0.5)
    config = MlpProbeConfig.from_generator(generator, "pooled:2", calibration=calibration)
    model = MlpProbe(config.input_width(build_verifier_input("pooled:2")), config.hidden_size)
    model.set_statistics(torch.randn(model.width), torch.rand(model.width))
    folder = tmp_path / "probe"
    MlpProbeVerifier("probe", config, model).save_pretrained(folder)
    return folder


def test_a_new_class_is_loaded_from_its_folder_and_picks_the_winner(probe: Path, generator: Generator) -> None:
    verifier = load_verifier(str(probe), CPU, torch.float32)
    assert isinstance(verifier, MlpProbeVerifier)
    assert verifier.config.hidden_size == 16
    assert verifier.check(generator) == []
    record = BestOfN(generator, verifier)(PROMPT, n=6).record
    scores = [candidate.score for candidate in record.candidates]
    assert len(set(scores)) == 6
    assert record.winner == scores.index(max(scores))
    for candidate in record.candidates:
        assert candidate.probability == Calibration(temperature=2.0, bias=0.5).probability(candidate.score)


def test_saving_and_loading_changes_neither_scores_nor_digest(probe: Path, generator: Generator) -> None:
    verifier = load_verifier(str(probe), CPU, torch.float32)
    assert isinstance(verifier, MlpProbeVerifier)
    verifier.save_pretrained(probe.parent / "again")
    again = MlpProbeVerifier.from_pretrained(probe.parent / "again")
    candidates = generator.advance(
        generator.start(generator.encode(PROMPT, generator.defaults), (1, 2)), verifier.reads
    )
    assert again.score(PROMPT, candidates) == verifier.score(PROMPT, candidates)
    assert again.digest == verifier.digest


def test_it_is_checked_against_its_generator_like_any_other(probe: Path, generator: Generator) -> None:
    verifier = load_verifier(str(probe), CPU, torch.float32)
    assert isinstance(verifier, MlpProbeVerifier)
    verifier.config = verifier.config.model_copy(update={"generator_fingerprint": "0123456789abcdef"})
    (warning,) = verifier.check(generator)
    assert "0123456789abcdef" in warning
    generator.architecture = generator.architecture.model_copy(update={"width": 96})
    with pytest.raises(MismatchError, match=r"width = 64, but .* has width = 96"):
        verifier.check(generator)


def test_it_is_shown_with_its_own_fields(probe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = CommandLine(capsys)("verifier", "show", probe)
    assert outcome.status == 0, outcome
    said = " ".join(outcome.out.split())
    for shown in ("kind mlp_probe", "reads pooled:2", "generator's num blocks 4", "hidden size 16", "temperature 2"):
        assert shown in said


def test_an_unknown_kind_is_refused_with_the_known_ones(probe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(VERIFIER_CLASSES, "mlp_probe")
    with pytest.raises(CheckpointError, match=r"verifier\.json: kind = 'mlp_probe' is unknown.* language_model"):
        load_verifier(str(probe), CPU, torch.float32)


def test_an_unknown_input_is_refused_with_the_known_ones(probe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(VERIFIER_INPUTS, "pooled")
    with pytest.raises(
        CheckpointError, match=r"reads = 'pooled:2'.* hidden:K \(after K blocks\), latent, clip or preview"
    ):
        load_verifier(str(probe), CPU, torch.float32)


def test_what_does_not_go_together_is_refused_before_models_load(
    tiny_generator: Path, tiny_verifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forejudge.best_of_n.load_generator", lambda *_: pytest.fail("the generator is loaded"))
    with pytest.raises(InvalidRequest, match="unknown verifier 'nope'"):
        BestOfN.from_pretrained(str(tiny_generator), "nope")
    with pytest.raises(CheckpointError, match=r"verifier\.json is missing"):
        BestOfN.from_pretrained(str(tiny_generator), str(tmp_path))
    with pytest.raises(MismatchError, match="reads a generator with width = 64, but miniature has width = "):
        BestOfN.from_pretrained("miniature", str(tiny_verifier))


def test_an_aligned_connector_is_refused_by_name(tiny_generator: Path, tiny_verifier: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_verifier, tmp_path / "aligned"))
    config = folder / "verifier.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"stage": "align"}))
    said = rf"{folder} is an aligned connector \(stage 1\).*: train stage 2 with .* --aligned {folder}"
    with pytest.raises(InvalidRequest, match=said):
        load_verifier(str(folder), CPU, torch.float32)
    with pytest.raises(InvalidRequest, match=said):
        BestOfN.from_pretrained(str(tiny_generator), str(folder))
