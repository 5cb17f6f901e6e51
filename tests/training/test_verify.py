"""Stage 2: what is learnt, what is left in the folder, and that options change the way but not the result."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forejudge import BestOfN
from forejudge.errors import InvalidRequest, MismatchError, MissingExtra
from forejudge.expected_improvement import fit_prior
from forejudge.training.config import LoraOptions, with_changes
from forejudge.training.dataset import LabeledRows, QuestionTokens, StoredRows, collate_rows
from forejudge.training.model import TrainableVerifier
from forejudge.training.verify import prepare_verification
from forejudge.types import Candidates, Verdict
from forejudge.verifiers import load_verifier
from forejudge.verifiers.config import fit_calibration
from forejudge.verifiers.cross_attention import CrossAttentionVerifier
from forejudge.verifiers.language_model import LanguageModelVerifier
from tests.support.tiny_preview import new_tiny_decoder, save_tiny_tower
from tests.support.tiny_run import CANDIDATES, CPU, TinyRun, assert_weights_equal, relabeled, weights

QUICK: dict[str, Any] = {"steps": 6, "eval_steps": 6}
ENOUGH: dict[str, Any] = {"steps": 30, "batch_size": 32, "learning_rate": 3e-3, "eval_steps": 10}
FEW = ENOUGH | {"steps": 15}
SMALL = {"width": 64, "layers": 1, "heads": 2}


def loaded(folder: Path) -> LanguageModelVerifier:
    verifier = load_verifier(str(folder), CPU, torch.float32)
    assert isinstance(verifier, LanguageModelVerifier)
    return verifier


def metrics(folder: Path) -> dict[str, float]:
    return dict(json.loads((folder / "metrics.json").read_text()))


def opposite(row: dict[str, Any]) -> dict[str, Any]:
    return {"correct": not row["correct"]}


@pytest.fixture(scope="module")
def opposites(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """Labels reversed."""
    folder = tmp_path_factory.mktemp("opposites")
    for name in ("generator", "language_model"):
        (folder / name).symlink_to(tiny_run.folder / name)
    for name in ("training", "validation"):
        relabeled(tiny_run.folder / name, folder / name, opposite)
    return TinyRun(folder)


@pytest.mark.parametrize(
    "verifier_class",
    [{}, {"cross_attention": SMALL, "spatial_merge_size": 8, "learning_rate": 5e-4}],
    ids=["language model", "cross-attention"],
)
def test_it_learns_whatever_it_is_taught(
    tiny_run: TinyRun, opposites: TinyRun, tmp_path: Path, verifier_class: dict[str, Any]
) -> None:
    """A label, and its opposite: no verifier is good at both by luck. Figures are of held-out prompts."""
    for number, run in enumerate((tiny_run, opposites)):
        found = metrics(run.verify(tmp_path / str(number), **ENOUGH | verifier_class))
        assert found["auroc"] > 0.75
        assert found["pair_accuracy"] > 0.6
        assert (found["count"], found["positive_rate"]) == (64, 0.5)


def test_the_folder_is_a_verifier_that_can_be_used(tiny_run: TinyRun, trained_verifier: Path) -> None:
    search = BestOfN.from_pretrained(str(tiny_run.folder / "generator"), str(trained_verifier), device="cpu")
    result = search("a photo of a star", n=3)
    assert result.record.settings.warnings == ()
    assert result.winner.probability is not None


@pytest.mark.parametrize(
    "changes", [{}, {"precision": "bfloat16", "save_dtype": "bfloat16"}], ids=["plain", "bfloat16"]
)
def test_its_probabilities_are_fitted_to_validation_prompts(
    tiny_run: TinyRun, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """By what the stored weights answer: whoever loads them gets the probabilities that were fitted."""
    verifier = loaded(tiny_run.verify(tmp_path / "out", **QUICK, **changes))
    rows = StoredRows.of(tiny_run.validation, tiny_run.generator)
    held_out = LabeledRows.of(rows, tiny_run.generator, verifier.verifier_input, QuestionTokens(verifier.question))
    verdicts = judged(verifier, held_out)
    scores = [verdict.score for verdict in verdicts]
    found, expected = verifier.config.calibration, fit_calibration(scores, rows.correct.tolist())
    assert found is not None
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert found.bias == pytest.approx(expected.bias, rel=1e-3, abs=1e-6)
    by_group: dict[object, list[float]] = {}
    for group, verdict in zip(rows.groups, verdicts, strict=True):
        by_group.setdefault(group, []).append(verdict.probability or 0)
    prior, expected_prior = verifier.config.prior, fit_prior(by_group.values())
    assert prior is not None
    assert prior.model_dump() == pytest.approx(expected_prior.model_dump(), rel=1e-3)


def judged(verifier: LanguageModelVerifier, held_out: LabeledRows) -> list[Verdict]:
    stage = verifier.verifier_input.stage
    verdicts: list[Verdict] = []
    for row, prompt in enumerate(held_out.rows.prompts):
        view = {stage: held_out.batches.states.tokens([row]).float()}
        verdicts += verifier.score(prompt, Candidates((row,), stage, view, None))
    return verdicts


@pytest.mark.parametrize(
    "loss",
    [
        {"kind": "cross-entropy"},
        {"kind": "class-weighted"},
        {"kind": "focal"},
        {"kind": "regression"},
        {"kind": "class-weighted", "pairwise": 1.0},
        {"kind": "regression", "listwise": 1.0},
    ],
    ids=lambda loss: "-".join(map(str, loss.values())),
)
def test_every_loss_trains_a_verifier(tiny_run: TinyRun, tmp_path: Path, loss: dict[str, Any]) -> None:
    verifier = loaded(tiny_run.verify(tmp_path / "out", **FEW, loss=loss))
    assert verifier.config.has_head == (loss["kind"] == "regression")
    assert verifier.calibrated
    assert metrics(tmp_path / "out")["auroc"] > 0.7


def test_batches_for_ranking_hold_all_candidates_of_a_prompt(tiny_run: TinyRun, tmp_path: Path) -> None:
    recipe = tiny_run.verify_recipe(loss={"kind": "class-weighted", "pairwise": 1.0})
    run = prepare_verification(recipe, tiny_run.generator, tiny_run.data, aligned=None).run
    batch = collate_rows([run.training[1], run.training[3]])
    labels = tiny_run.data.training.correct.reshape(-1, CANDIDATES)
    assert len(run.training) == len(labels)
    assert batch["labels"].tolist() == labels[[1, 3]].astype(int).tolist()
    assert run.batch_size == recipe.batch_size
    rounded = {size: replace(run, recipe=with_changes(recipe, batch_size=size)).batch_size for size in (3, 6, 13)}
    assert rounded == {3: 4, 6: 4, 13: 12}


def test_hindsight_needs_labels_that_follow_from_detections(tiny_run: TinyRun) -> None:
    with pytest.raises(InvalidRequest, match=r"hindsight: the labels for .* do not follow from the detections"):
        prepare_verification(tiny_run.verify_recipe(hindsight=1), tiny_run.generator, tiny_run.data, aligned=None)


def test_losses_differ(tiny_run: TinyRun, trained_verifier: Path, tmp_path: Path) -> None:
    """The class weights of 15 right and 105 wrong candidates are other ones than none."""
    few = relabeled(tiny_run.training, tmp_path / "few", lambda row: {"correct": row["correct"] and row["index"] == 0})
    (tmp_path / "run").mkdir()
    for name in ("generator", "language_model", "validation"):
        (tmp_path / "run" / name).symlink_to(tiny_run.folder / name)
    (tmp_path / "run" / "training").symlink_to(few)
    run = TinyRun(tmp_path / "run")
    weighted, plain = (
        weights(run.verify(tmp_path / kind, **QUICK, loss={"kind": kind}))["connector.safetensors/layers.0.weight"]
        for kind in ("class-weighted", "cross-entropy")
    )
    assert not torch.equal(weighted, plain)


def test_adapters_are_all_that_is_trained_of_a_language_model(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_merging: dict[str, torch.Tensor] = {}
    merge_adapters = TrainableVerifier.merge_adapters

    def remembered(self: TrainableVerifier) -> TrainableVerifier:
        before_merging.update({k: v.clone() for k, v in self.model.language_model.state_dict().items()})
        return merge_adapters(self)

    monkeypatch.setattr(TrainableVerifier, "merge_adapters", remembered)
    folder = tiny_run.verify(tmp_path / "out", **QUICK, lora={"rank": 4, "alpha": 8, "dropout": 0.0})
    begun_with = load_file(tiny_run.folder / "language_model" / "model.safetensors")
    adapters = {name: tensor for name, tensor in before_merging.items() if "lora_" in name}
    assert len(adapters) == 2 * 7, "on each of the seven linear layers"
    assert any(tensor.abs().max() > 0 for name, tensor in adapters.items() if "lora_B" in name)
    for name, tensor in before_merging.items():
        if name not in adapters:
            plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
            expected = begun_with.get(plain, begun_with["model.embed_tokens.weight"])
            assert torch.equal(tensor, expected), name
    stored = load_file(folder / "language_model" / "model.safetensors")
    assert stored.keys() == begun_with.keys()
    changed = {name for name, tensor in stored.items() if not torch.equal(tensor, begun_with[name])}
    assert changed == {name for name in begun_with if "_proj.weight" in name}


@pytest.mark.slow  # imports everything once more
def test_a_merged_verifier_loads_without_peft(tiny_run: TinyRun, tmp_path: Path, repository: Path) -> None:
    folder = tiny_run.verify(tmp_path / "out", **QUICK, lora={"rank": 4})
    program = (
        "import sys; from importlib.machinery import PathFinder; find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *where: None if name.split('.')[0] == 'peft' else find(name, *where)\n"
        "from forejudge.verifiers.language_model import LanguageModelVerifier\n"
        "print(LanguageModelVerifier.from_pretrained(sys.argv[1]).config.reads)"
    )
    command = [sys.executable, "-c", program, str(folder)]
    ended = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=600)
    assert ended.stdout == "hidden:2\n", ended.stderr


def test_adapters_without_peft_name_the_extra(trained_verifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = loaded(trained_verifier)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=r"peft is not installed: pip install 'forejudge\[lora\]'"):
        TrainableVerifier(verifier.model, verifier.tokenizer).with_lora(LoraOptions())


def test_a_verifier_without_a_language_model_is_trained_stored_and_used(tiny_run: TinyRun, tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "language_model": "owner/unused",
        "cross_attention": SMALL,
        "loss": {"kind": "focal", "pairwise": 1.0},
    }
    folder = tiny_run.verify(tmp_path / "out", **QUICK, **recipe)
    verifier = load_verifier(str(folder), CPU, torch.float32)
    assert isinstance(verifier, CrossAttentionVerifier)
    assert verifier.calibrated
    assert verifier.prior is not None
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "CrossAttentionVerifier.from_pretrained" in card
    assert "| language model |" not in card
    search = BestOfN.from_pretrained(str(tiny_run.folder / "generator"), str(folder), device="cpu")
    result = search("a photo of a star", n=3)
    assert result.record.settings.warnings == ()
    assert result.winner.probability is not None


def test_a_verifier_without_a_language_model_is_not_aligned(tiny_run: TinyRun, tmp_path: Path) -> None:
    aligned = tiny_run.align(tmp_path / "aligned", steps=1, eval_steps=1)
    with pytest.raises(InvalidRequest, match=r"a cross_attention verifier has no language model to align with"):
        tiny_run.verify(tmp_path / "out", aligned=aligned, **QUICK, cross_attention=SMALL)
    assert not (tmp_path / "out").exists()


def test_another_reading_goes_through_the_same_trainer(tiny_run: TinyRun, tmp_path: Path) -> None:
    """The latent was not recorded, so it is regenerated."""
    verifier = loaded(tiny_run.verify(tmp_path / "out", **QUICK, reads="latent"))
    assert str(next(iter(verifier.reads))).startswith("latent")
    assert verifier.model.connector.mean_D is not None
    assert verifier.model.connector.mean_D.shape == (tiny_run.generator.architecture.latent_channels,)
    search = BestOfN.from_pretrained(str(tiny_run.folder / "generator"), str(tmp_path / "out"), device="cpu")
    assert search("a photo of a star", n=2).winner.probability is not None


@pytest.mark.parametrize("reads", ["clip", "preview"])
def test_a_picture_is_read_through_models_that_stay_as_they_are(tiny_run: TinyRun, tmp_path: Path, reads: str) -> None:
    models: dict[str, Any] = {"vision_tower": str(save_tiny_tower(tmp_path / "tower", patch_size=16))}
    if reads == "preview":
        new_tiny_decoder(tiny_run.generator.architecture.latent_channels).save_pretrained(tmp_path / "tiny")
        models["tiny_decoder"] = str(tmp_path / "tiny")
    changes = QUICK | {"steps": 2, "eval_steps": 2, "statistics_rows": 16}
    folder = tiny_run.verify(tmp_path / "out", **changes, reads=reads, **models)
    for field, source in models.items():
        (file,) = (folder / field).glob("*.safetensors")
        assert_weights_equal(load_file(file), load_file(Path(source) / file.name))
    search = BestOfN.from_pretrained(str(tiny_run.folder / "generator"), str(folder), device="cpu")
    assert search("a photo of a star", n=2).winner.probability is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_accumulation_steps": 4},
        pytest.param({"gradient_checkpointing": True}, marks=pytest.mark.slow),
        {"lora": {"rank": 4}, "gradient_checkpointing": True},
    ],
    ids=["accumulated", "checkpointed", "adapters checkpointed"],
)
def test_what_saves_memory_changes_no_weight(tiny_run: TinyRun, tmp_path: Path, changes: dict[str, Any]) -> None:
    plain = {**changes, "gradient_accumulation_steps": 1, "gradient_checkpointing": False}
    saving = weights(tiny_run.verify(tmp_path / "saving", **QUICK, **changes))
    assert_weights_equal(saving, weights(tiny_run.verify(tmp_path / "plain", **QUICK, **plain)), tolerance=1e-4)


@pytest.mark.slow
def test_a_run_in_bfloat16_leaves_no_trace_on_the_next(
    tiny_run: TinyRun, trained_verifier: Path, tmp_path: Path
) -> None:
    tiny_run.verify(tmp_path / "half", precision="bfloat16")
    assert_weights_equal(weights(tiny_run.verify(tmp_path / "full")), weights(trained_verifier))
    half = weights(tmp_path / "half")
    assert any(not torch.equal(tensor, half[name]) for name, tensor in weights(trained_verifier).items())


def test_it_goes_on_from_what_stage_1_left(tiny_run: TinyRun, aligned: Path, tmp_path: Path) -> None:
    folder = tiny_run.verify(tmp_path / "out", aligned=aligned, learning_rate=1e-12, **QUICK)
    assert_weights_equal(weights(folder), weights(aligned), tolerance=1e-6)


def test_an_aligned_connector_that_reads_something_else_is_refused(
    tiny_run: TinyRun, aligned: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        MismatchError, match="aligned has reads = hidden:2, the recipe has hidden:3: make them the same"
    ):
        tiny_run.verify(tmp_path / "out", aligned=aligned, reads="hidden:3")


@pytest.mark.parametrize(
    ("name", "label", "said"),
    [
        ("training", lambda row: True, "120 of 120 candidates are right, .*label more prompts"),
        ("validation", lambda row: False, "0 of 64 candidates are right, .*label more prompts"),
        ("validation", lambda row: len(row["prompt"]) % 2 == 0, "no prompt has both right and wrong"),
    ],
)
def test_labels_that_teach_nothing_are_refused(
    tiny_run: TinyRun, tmp_path: Path, name: str, label: Any, said: str
) -> None:
    for other in {"generator", "language_model", "training", "validation"} - {name}:
        (tmp_path / other).symlink_to(tiny_run.folder / other)
    relabeled(tiny_run.folder / name, tmp_path / name, lambda row: {"correct": label(row)})
    with pytest.raises(InvalidRequest, match=said):
        TinyRun(tmp_path).verify(tmp_path / "out")
