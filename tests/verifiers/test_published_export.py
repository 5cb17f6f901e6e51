"""Verifiers written in the published layout: nothing is lost on the way there and back."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from forejudge.errors import CheckpointError, InvalidRequest, OutputError
from forejudge.generators import load_architecture
from forejudge.hub import Source
from forejudge.verifiers import VERIFIER_CLASSES
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.language_model import LanguageModelVerifier, LanguageModelVerifierConfig, YesNoModel
from forejudge.verifiers.published_export import export_published
from forejudge.verifiers.published_import import PublishedSource
from forejudge.verifiers.question import PUBLISHED_QUESTION
from research.miniature.language_model import new_language_model, qwen2_tokenizer
from tests.support.official import DTYPES, OFFICIAL, RECORDED, STATES, candidates, import_verifier

GENERATOR = str(OFFICIAL / "sana-sprint-tiny")


def exported(verifier: LanguageModelVerifier, folder: Path) -> Path:
    """The verifier's folder, and from that its published one."""
    verifier.save_pretrained(folder / "ours")
    (folder / "published").mkdir()
    export_published(folder / "ours", folder / "published")
    return folder / "published"


@pytest.mark.parametrize("norm", ["channel", "token", "global"])
@pytest.mark.parametrize("mode", DTYPES)
def test_there_and_back_every_bit_is_the_same(tmp_path: Path, norm: str, mode: str) -> None:
    source = RECORDED.hidden_verifier(norm, mode)
    folder = exported(import_verifier(source, dtype=None), tmp_path)
    before, after = (load_file(each / "model.safetensors") for each in (source.folder, folder))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor), name
    assert json.loads((folder / "config.json").read_text()) == json.loads((source.folder / "config.json").read_text())
    for path in source.statistics_files or ():
        assert torch.equal(torch.load(folder / path.name, weights_only=True), torch.load(path, weights_only=True))

    again = import_verifier(PublishedSource(Source("again", folder), generator=GENERATOR), DTYPES[mode])
    states = candidates(RECORDED.states(STATES[mode])["act_2"])
    assert again.score("a star", states) == import_verifier(source, DTYPES[mode]).score("a star", states)


def test_a_vocabulary_that_import_changed_is_not_changed_again(tmp_path: Path) -> None:
    source = RECORDED.clip_verifier()
    folder = exported(import_verifier(source, dtype=None), tmp_path)
    before, after = (load_file(each / "model.safetensors") for each in (source.folder, folder))
    own = {name for name in before if "vision_tower" not in name}
    assert after.keys() == own
    assert all(torch.equal(after[name], before[name]) for name in own - {"model.embed_tokens.weight"})
    assert torch.equal(after["model.embed_tokens.weight"][:959], before["model.embed_tokens.weight"][:959])
    fields = json.loads((folder / "config.json").read_text())
    assert fields == json.loads((source.folder / "config.json").read_text()) | {"vocab_size": 960}
    again = import_verifier(PublishedSource(Source("again", folder), vision_tower=source.vision_tower))
    assert torch.equal(again.model.language_model.get_input_embeddings().weight, after["model.embed_tokens.weight"])


def test_its_tokenizer_is_written_as_transformers_4_reads_it(tmp_path: Path) -> None:
    """Which knows no list of extra special tokens, and may read the vocabulary apart."""
    folder = exported(import_verifier(RECORDED.hidden_verifier(), dtype=None), tmp_path)
    written = json.loads((folder / "tokenizer_config.json").read_text())
    assert not {"extra_special_tokens", "backend"} & written.keys()
    assert written["additional_special_tokens"] == ["<|im_start|>", "<|im_end|>"]
    assert written["added_tokens_decoder"]["915"]["content"] == "<|im_end|>"
    assert json.loads((folder / "vocab.json").read_text())["yes"] == 260
    assert len((folder / "merges.txt").read_text().splitlines()) > 100


def trained(
    merge_size: int = 1, question: str = PUBLISHED_QUESTION, reads: str = "hidden:8", **fields: Any
) -> LanguageModelVerifier:
    """One that was never published."""
    torch.manual_seed(0)
    tokenizer = qwen2_tokenizer([PUBLISHED_QUESTION])
    architecture = load_architecture(GENERATOR)
    config = LanguageModelVerifierConfig(
        generator=architecture,
        generator_fingerprint="0123456789abcdef",
        reads=reads,
        question=question,
        spatial_merge_size=merge_size,
        **fields,
    )
    width = architecture.width if reads != "latent" else architecture.latent_channels
    connector = Connector(width, 64, merge_size)
    connector.set_statistics(torch.randn(width), torch.rand(width))
    model = YesNoModel(connector, new_language_model(tokenizer, 64, 2))
    return LanguageModelVerifier("trained", config, model, tokenizer)


def test_one_that_was_never_published_scores_alike_when_it_is(tmp_path: Path) -> None:
    verifier = trained()
    folder = exported(verifier, tmp_path)
    again = import_verifier(PublishedSource(Source("again", folder), generator=GENERATOR))
    states = candidates(torch.randn(2, 64, 96))
    assert again.score("a star", states) == verifier.score("a star", states)
    fields = json.loads((folder / "config.json").read_text())
    assert fields["rope_theta"] == verifier.model.language_model.config.rope_parameters["rope_theta"]
    assert fields["torch_dtype"] == "float32"
    assert "rope_parameters" not in fields


@pytest.mark.parametrize(
    ("verifier", "said"),
    [
        (lambda: trained(merge_size=2), "merged tokens"),
        (lambda: trained(question="<image> {prompt}?"), "a question of its own"),
        (lambda: trained(reads="latent"), "a verifier that reads latent"),
        (lambda: trained(stage="align"), "a connector of stage 1"),
    ],
)
def test_a_verifier_that_the_layout_cannot_hold_is_refused(tmp_path: Path, verifier: object, said: str) -> None:
    assert callable(verifier)
    with pytest.raises(InvalidRequest, match=f"cannot hold {said}"):
        exported(verifier(), tmp_path)


def test_a_folder_without_a_verifier_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"verifier\.json is missing"):
        export_published(tmp_path, tmp_path / "published")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = trained()
    folder = exported(verifier, tmp_path).parent / "ours"

    def full(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    for module in ("published_export", "language_model"):
        monkeypatch.setattr(f"forejudge.verifiers.{module}.save_file", full)
    for write in (partial(export_published, folder), verifier.save_pretrained):
        with pytest.raises(OutputError, match="new cannot be written"):
            write(tmp_path / "new")


def test_another_kind_of_verifier_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "verifier.json").write_text('{"kind": "mlp_probe"}')
    with pytest.raises(CheckpointError, match=r"kind = 'mlp_probe' is unknown, expected language_model"):
        export_published(tmp_path, tmp_path / "published")
    monkeypatch.setitem(VERIFIER_CLASSES, "mlp_probe", "tests.support.probe:MlpProbeVerifier")
    with pytest.raises(InvalidRequest, match="the published layout cannot hold a MlpProbeVerifier"):
        export_published(tmp_path, tmp_path / "published")
