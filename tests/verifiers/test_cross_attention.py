"""The verifier without a language model: what it reads, and that its folder keeps it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from forejudge.errors import CheckpointError, MismatchError
from forejudge.generators import load_generator
from forejudge.generators.base import Generator
from forejudge.types import Candidates
from forejudge.verifiers import load_verifier
from forejudge.verifiers.config import Calibration
from forejudge.verifiers.cross_attention import (
    CrossAttentionModel,
    CrossAttentionSize,
    CrossAttentionVerifier,
    CrossAttentionVerifierConfig,
)
from forejudge.verifiers.inputs import build_verifier_input
from tests.support.doubles import CPU

SIZE = CrossAttentionSize(width=32, layers=2, heads=4)
PROMPT, OTHER_PROMPT = "a photo of a star", "a photo of two blue discs"


@pytest.fixture(scope="module")
def generator(tiny_generator: Path) -> Generator:
    return load_generator(str(tiny_generator), CPU, torch.float32)


@pytest.fixture(scope="module")
def config(generator: Generator) -> CrossAttentionVerifierConfig:
    calibration = Calibration(temperature=0.5, bias=0.1)
    return CrossAttentionVerifierConfig.from_generator(generator, "hidden:2", size=SIZE, calibration=calibration)


@pytest.fixture
def model(config: CrossAttentionVerifierConfig) -> CrossAttentionModel:
    torch.manual_seed(0)
    return config.new_model(build_verifier_input("hidden:2")).eval()


@pytest.fixture
def verifier(config: CrossAttentionVerifierConfig, model: CrossAttentionModel) -> CrossAttentionVerifier:
    return CrossAttentionVerifier("tiny", config, model)


def candidates_of(generator: Generator, verifier: CrossAttentionVerifier, prompt: str) -> Candidates:
    conditioning = generator.encode_without_padding(prompt, generator.defaults)
    return generator.advance(generator.start(conditioning, (1, 2, 3)), verifier.reads)


def scores(generator: Generator, verifier: CrossAttentionVerifier, prompt: str = PROMPT) -> list[float]:
    return [verdict.score for verdict in verifier.score(prompt, candidates_of(generator, verifier, prompt))]


@torch.no_grad()
def test_a_verdict_is_the_models_answer_about_the_prompt_and_the_candidate(
    generator: Generator, verifier: CrossAttentionVerifier, model: CrossAttentionModel
) -> None:
    candidates = candidates_of(generator, verifier, PROMPT)
    verdicts = verifier.score(PROMPT, candidates)
    text_LD = generator.text_states(generator.encode(PROMPT, generator.defaults))
    assert text_LD is not None
    (stage,) = verifier.reads
    expected = [model(candidates.tensor(stage)[[row]], text_LD[None]).item() for row in range(3)]
    assert [verdict.score for verdict in verdicts] == pytest.approx(expected, abs=1e-5)
    assert [verdict.log_odds for verdict in verdicts] == [verdict.score for verdict in verdicts]
    calibration = Calibration(temperature=0.5, bias=0.1)
    assert [each.probability for each in verdicts] == [calibration.probability(each.score) for each in verdicts]
    assert len({*expected, *scores(generator, verifier, OTHER_PROMPT)}) == 6


@torch.no_grad()
def test_padding_of_a_text_changes_nothing(model: CrossAttentionModel) -> None:
    tokens_NTD, text_NLD = torch.randn(2, 64, 64), torch.randn(2, 5, 96)
    mask_NL = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    together = model(tokens_NTD, text_NLD, mask_NL)
    alone = torch.cat([model(tokens_NTD[:1], text_NLD[:1]), model(tokens_NTD[1:], text_NLD[1:, :3])])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert not torch.allclose(model(tokens_NTD, text_NLD), together, atol=1e-3)


@torch.no_grad()
def test_the_place_of_a_token_matters(model: CrossAttentionModel) -> None:
    """Put the same tokens in another order, and into a wide and a high image: other images."""
    tokens_NTD, text_NLD = torch.randn(1, 64, 64), torch.randn(1, 3, 96)
    answers = [
        model(tokens_NTD, text_NLD),
        model(tokens_NTD.flip(1), text_NLD),
        model(tokens_NTD, text_NLD, grid=(4, 16)),
        model(tokens_NTD, text_NLD, grid=(16, 4)),
    ]
    assert torch.equal(answers[0], model(tokens_NTD, text_NLD, grid=(8, 8)))
    assert len({round(answer.item(), 4) for answer in answers}) == 4


def test_a_folder_keeps_scores_and_digest(
    generator: Generator, verifier: CrossAttentionVerifier, tmp_path: Path
) -> None:
    verifier.save_pretrained(tmp_path)
    loaded = load_verifier(str(tmp_path), CPU, torch.float32)
    assert isinstance(loaded, CrossAttentionVerifier)
    assert loaded.check(generator) == []
    assert scores(generator, loaded) == scores(generator, verifier)
    assert loaded.digest == verifier.digest


def test_other_weights_have_another_digest(verifier: CrossAttentionVerifier, tmp_path: Path) -> None:
    """Digests are remembered by the files that were read, and by the rounding of their weights."""
    verifier.save_pretrained(tmp_path / "one")
    verifier.model.answer_E.data += 0.01
    verifier.save_pretrained(tmp_path / "other")
    folders = [tmp_path / "one", tmp_path / "other"]
    digests = [CrossAttentionVerifier.from_pretrained(folder).digest for folder in folders]
    digests += [CrossAttentionVerifier.from_pretrained(folder, dtype=torch.float16).digest for folder in folders]
    assert len(set(digests)) == 4


def test_half_precision_keeps_the_statistics(
    generator: Generator, verifier: CrossAttentionVerifier, tmp_path: Path
) -> None:
    verifier.save_pretrained(tmp_path)
    loaded = CrossAttentionVerifier.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.model.connector.mean_D is not None
    assert loaded.model.connector.mean_D.dtype == torch.float32
    assert scores(generator, loaded) == pytest.approx(scores(generator, verifier), abs=0.1)


def test_a_generator_without_text_states_is_refused(generator: Generator, verifier: CrossAttentionVerifier) -> None:
    candidates = replace(candidates_of(generator, verifier, PROMPT), text_LD=None)
    with pytest.raises(MismatchError, match=r"verifier tiny reads the generator's text states, which this generator"):
        verifier.score(PROMPT, candidates)


def test_a_wrong_size_is_named(verifier: CrossAttentionVerifier, tmp_path: Path) -> None:
    verifier.save_pretrained(tmp_path)
    path = tmp_path / "verifier.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"size": {"width": 30, "layers": 2, "heads": 4}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"verifier\.json.*width = 30 must be a multiple of heads = 4 and of 4"):
        CrossAttentionVerifier.from_pretrained(tmp_path)
