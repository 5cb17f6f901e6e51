"""The published layout holds a verifier of any generator's hidden state: there, back, and at work."""

import json
from pathlib import Path

import pytest
import torch

from forejudge import BestOfN
from forejudge.errors import CheckpointError, MismatchError
from forejudge.generators import KNOWN_MODELS, load_architecture, load_generator
from forejudge.generators.base import Generator
from forejudge.hub import Source
from forejudge.verifiers import load_verifier
from forejudge.verifiers.connector import StatisticsKind
from forejudge.verifiers.inputs import build_verifier_input
from forejudge.verifiers.language_model import LanguageModelVerifier, LanguageModelVerifierConfig, YesNoModel
from forejudge.verifiers.published_export import export_published
from forejudge.verifiers.published_import import PublishedSource, import_published
from forejudge.verifiers.question import PUBLISHED_QUESTION
from research.miniature.language_model import new_language_model, qwen2_tokenizer
from tests.support.command import CommandLine
from tests.support.doubles import CPU, PROMPT
from tests.support.tiny_flux import new_flux, save_flux
from tests.support.tiny_pixart import save_tiny_pixart


@pytest.fixture(scope="module", params=["flux", "pixart"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained generator."""
    folder = tmp_path_factory.mktemp(request.param) / "generator"
    return save_flux(folder, new_flux()) if request.param == "flux" else save_tiny_pixart(folder)


@pytest.fixture
def generator(folder: Path) -> Generator:
    return load_generator(str(folder), CPU, torch.float32)


def trained(generator: Generator, statistics: StatisticsKind = "channel") -> LanguageModelVerifier:
    """A verifier of the generator's hidden state after two blocks, with random weights and statistics."""
    torch.manual_seed(0)
    tokenizer = qwen2_tokenizer([PUBLISHED_QUESTION])
    tokens = generator.architecture.num_tokens if statistics == "token" else None
    config = LanguageModelVerifierConfig.from_generator(generator, "hidden:2", statistics=statistics, tokens=tokens)
    connector = config.new_connector(build_verifier_input("hidden:2"), 64)
    assert connector.mean_D is not None
    connector.set_statistics(torch.randn(connector.mean_D.shape), torch.rand(connector.mean_D.shape))
    model = YesNoModel(connector, new_language_model(tokenizer, 64, 2))
    return LanguageModelVerifier("trained", config, model, tokenizer)


def exported(verifier: LanguageModelVerifier, folder: Path) -> Source:
    """The verifier's published folder."""
    verifier.save_pretrained(folder / "ours")
    (folder / "published").mkdir()
    export_published(folder / "ours", folder / "published")
    return Source("published", folder / "published")


@pytest.mark.parametrize("statistics", ["channel", "token"])
def test_an_exported_verifier_is_imported_for_its_generator(
    folder: Path, generator: Generator, tmp_path: Path, statistics: StatisticsKind
) -> None:
    verifier = trained(generator, statistics)
    imported = import_published(PublishedSource(exported(verifier, tmp_path), generator=str(folder))).verifier
    assert imported.config.generator == generator.architecture == load_architecture(str(folder))
    assert (imported.config.reads, imported.config.statistics) == ("hidden:2", statistics)
    assert imported.check(generator) == []
    conditioning = generator.encode(PROMPT, generator.defaults)
    candidates = generator.advance(generator.start(conditioning, (1, 2, 3)), imported.reads)
    assert imported.score(PROMPT, candidates) == verifier.score(PROMPT, candidates)


@pytest.mark.slow
def test_the_commands_convert_it_and_it_picks_the_winner(
    folder: Path, generator: Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forejudge, verifier = CommandLine(capsys), trained(generator)
    verifier.save_pretrained(tmp_path / "ours")
    assert forejudge("verifier", "export", tmp_path / "ours", tmp_path / "published").status == 0
    outcome = forejudge("verifier", "import", tmp_path / "published", tmp_path / "again", "--generator", folder)
    assert outcome.status == 0, outcome
    assert f"generator: {folder}; on which weights of it the verifier was trained is unknown" in outcome.out
    again = load_verifier(str(tmp_path / "again"), CPU, torch.float32)
    records = [BestOfN(generator, each)(PROMPT, n=3).record for each in (verifier, again)]
    assert records[0].winner == records[1].winner
    assert [each.score for each in records[0].candidates] == [each.score for each in records[1].candidates]


def test_another_generator_s_width_blocks_or_tokens_are_refused_with_both_values(
    folder: Path, generator: Generator, tiny_generator: Path, tmp_path: Path
) -> None:
    shape, published = generator.architecture, exported(trained(generator, "token"), tmp_path)
    with pytest.raises(MismatchError, match=rf"states of width {shape.width}, but \S+ has width 64"):
        import_published(PublishedSource(published, generator=str(tiny_generator)))
    path = published.folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mm_vision_select_feature": "block_9"}))
    with pytest.raises(MismatchError, match=f"after 10 blocks, but the generator has only {shape.num_blocks}"):
        import_published(PublishedSource(published, generator=str(folder)))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mm_vision_select_feature": "block_1"}))
    for name in ("mean", "variance"):
        torch.save(torch.ones(7), published.folder / f"block_1_{name}_token_fp32.pt")
    with pytest.raises(CheckpointError, match=rf"has shape \(7,\), expected .*\({shape.num_tokens},\) for each token"):
        import_published(PublishedSource(published, generator=str(folder)))


def test_without_a_name_the_one_known_generator_of_its_width_is_assumed(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = exported(trained(generator), tmp_path)
    assert PublishedSource(published).architecture is None
    spec = KNOWN_MODELS["flux-schnell"]
    monkeypatch.setitem(KNOWN_MODELS, "one", spec.model_copy(update={"architecture": generator.architecture}))
    assert PublishedSource(published).architecture == generator.architecture
    monkeypatch.setitem(KNOWN_MODELS, "two", KNOWN_MODELS["one"])
    assert PublishedSource(published).architecture is None
    assert any("of that width are one, two" in note for note in PublishedSource(published).notes())
