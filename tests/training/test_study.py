"""Studies: variants of one choice, held-out prompts and resumption, with a generator without a model library."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from forejudge.candidates.collect import CandidateCollector
from forejudge.candidates.observers import CaptionObserver, LabelObserver, Observer
from forejudge.candidates.store import CandidateStore
from forejudge.errors import InvalidRequest
from forejudge.evaluation.study_report import StudyReport
from forejudge.evaluators.base import Captioner
from forejudge.progress import Progress, Shard, ignore_progress
from forejudge.training.config import with_changes
from forejudge.training.dataset import StoredRows, TrainingData
from forejudge.training.presets import load_preset
from forejudge.training.study import CHOICES, Study, StudyInputs, Variant, check_recorded, study_variants
from forejudge.verifiers.inputs import build_verifier_input
from tests.support.stand_in import EvenIsRight, SeedGenerator, brightness, candidate_collector, prompt_lines
from tests.support.tiny_run import save_language_model

LINES = prompt_lines(*(f"{count} {shape}s" for count in ("two", "three") for shape in ("star", "disc", "ring")))
CANDIDATES, HELD_OUT = 6, 2  # a fifth of six prompts, rounded up
GENERATOR = SeedGenerator()


class BrightnessCaptioner(Captioner):
    """Says whether an image is right."""

    name = "brightness"

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        return ["a star" if brightness(image) % 2 else "two discs" for image in images]


def collect(folder: Path, observer: Observer) -> Path:
    verifier_inputs = [build_verifier_input(name) for name in ("hidden:1", "hidden:3")]
    collector = CandidateCollector(GENERATOR, LINES, CANDIDATES, 7, observer, verifier_inputs)
    collector.run(CandidateStore(folder), Shard(), ignore_progress)
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> StudyInputs:
    """Labels and captions of a generator that needs no model library, and recipes of two steps."""
    folder = tmp_path_factory.mktemp("study")
    labels = collect(folder / "labels", LabelObserver(EvenIsRight()))
    captions = collect(folder / "captions", CaptionObserver(BrightnessCaptioner()))
    changes: dict[str, Any] = {"language_model": str(save_language_model(folder / "language_model")), "steps": 2}
    changes |= {"reads": "hidden:3", "batch_size": 4, "precision": "float32", "spatial_merge_size": 1}
    preset = load_preset("miniature")
    return StudyInputs(
        generator=GENERATOR,
        align=with_changes(preset.align, **changes),
        verify=with_changes(preset.verify, **changes),
        labels=TrainingData.of(labels, None, GENERATOR),
        captions=TrainingData.of(captions, None, GENERATOR),
        folder=folder / "studies",
        report=ignore_progress,
    )


def variants(inputs: StudyInputs, choice: str, *values: str, aligned: bool = False) -> dict[str, Variant]:
    return study_variants(choice, values, inputs.verify, inputs.labels, GENERATOR, aligned)


def test_prompts_are_held_out_alike_in_every_folder(inputs: StudyInputs) -> None:
    assert inputs.captions is not None
    for data in (inputs.labels, inputs.captions):
        training, held_out = set(data.training.prompts), set(data.held_out.prompts)
        assert not training & held_out
        assert (len(training), len(held_out)) == (len(LINES) - HELD_OUT, HELD_OUT)
    assert set(inputs.labels.held_out.prompts) == set(inputs.captions.held_out.prompts)


def test_held_out_rows_are_those_of_the_folder(inputs: StudyInputs) -> None:
    whole, held_out = StoredRows.of(inputs.labels.training.store.path, GENERATOR), inputs.labels.held_out
    verifier_input = build_verifier_input("hidden:3")
    states = held_out.states(GENERATOR, verifier_input).tokens([1, 0])
    seeds = held_out.column("seed")
    rows = [whole.column("seed").index(seed) for seed in seeds[1::-1]]
    assert states.equal(whole.states(GENERATOR, verifier_input).tokens(rows))
    assert len({whole.digest, held_out.digest, inputs.labels.training.digest}) == 3


def test_a_folder_of_one_prompt_holds_nothing_out(inputs: StudyInputs) -> None:
    with pytest.raises(InvalidRequest, match="a single prompt: expected two or more"):
        replace(inputs.labels.held_out, selection=(0, 1)).split(0.5)


def test_layers_are_compared_and_a_stopped_study_continues(inputs: StudyInputs) -> None:
    parts: list[Progress] = []

    def stop(progress: Progress) -> None:
        parts.append(progress)
        if len(parts) == 3:
            raise KeyboardInterrupt

    found = variants(inputs, "layers")
    assert list(found) == ["hidden:1", "hidden:3"]
    with pytest.raises(KeyboardInterrupt):
        Study("layers", found, replace(inputs, report=stop), training_seeds=2).run()
    assert [progress.part for progress in parts] == ["hidden:1, seed 0: verify"] * 2 + ["hidden:3, seed 0: verify"]
    report = Study("layers", found, replace(inputs, report=parts.append), training_seeds=2).run()
    assert [progress.part for progress in parts[3:]].count("hidden:1, seed 0: verify") == 0
    assert (report.n, report.steps, report.training_seeds, report.test_cases) == (CANDIDATES, 2, 2, HELD_OUT)
    for reads, variant in report.variants.items():
        assert variant.reads == reads
        assert variant.best_of_1 is not None
        assert variant.oracle is not None
        assert variant.best_of_1.estimate <= variant.oracle.estimate <= 1
        assert len(variant.oracle_gap_closed_per_seed) == 2
        assert 0 <= variant.pair_accuracy.estimate <= 1
    parts.clear()
    again = Study("layers", found, replace(inputs, report=parts.append), training_seeds=2).run()
    assert again.variants == report.variants
    assert not parts, "finished trainings are skipped"
    report.write(inputs.folder / "layers.json")
    assert StudyReport.read(inputs.folder / "layers.json") == report


@pytest.mark.slow
def test_captions_decide_what_a_connector_is_aligned_to(inputs: StudyInputs) -> None:
    found = variants(inputs, "captions", aligned=True)
    assert {name: variant.captions for name, variant in found.items()} == {
        "new": "new",
        "original": "original",
        "none": None,
    }
    report = Study("captions", found, inputs, training_seeds=1).run()
    assert set(report.variants) == set(found)
    aligned = [path.name for path in (inputs.folder / "aligned").iterdir()]
    assert sorted(aligned) == [f"hidden-3-1x1-{kind}-language_model" for kind in ("new", "original")]


def test_each_choice_changes_its_own_field(inputs: StudyInputs) -> None:
    found = {choice: variants(inputs, choice, aligned=True) for choice in CHOICES if choice != "llm"}
    assert list(found["loss"]) == ["cross-entropy", "class-weighted", "focal", "regression"]
    assert list(found["pooling"]) == ["1", "2"], "a side of two tokens"
    assert list(found["data"]) == ["1", "6", "24"]
    recipes = {choice: [inputs.recipe(variant, 0) for variant in each.values()] for choice, each in found.items()}
    assert [recipe.loss.kind for recipe in recipes["loss"]] == list(found["loss"])
    assert [recipe.spatial_merge_size for recipe in recipes["pooling"]] == [1, 2]
    assert [recipe.training_rows for recipe in recipes["data"]] == [1, 6, 24]
    models = variants(inputs, "llm", "owner/one", "owner/two")
    assert [inputs.recipe(variant, 3).language_model for variant in models.values()] == ["owner/one", "owner/two"]
    assert all(variant.captions is None for variant in models.values())


def test_what_is_derived_from_a_recorded_input_need_not_be_recorded(tmp_path: Path) -> None:
    store = CandidateStore(tmp_path)
    candidate_collector(candidates=2, record=("latent",)).run(store, Shard(), ignore_progress)
    data = TrainingData.of(tmp_path, None, GENERATOR)
    check_recorded(data, "preview")
    with pytest.raises(InvalidRequest, match="has no recorded states of clip, only latent"):
        check_recorded(data, "clip")


@pytest.mark.parametrize(
    ("choice", "values", "message"),
    [
        ("color", (), "unknown study 'color': expected one of layers, loss"),
        ("layers", ("hidden:1", "hidden:2"), "has no recorded states of hidden:2, only hidden:1, hidden:3"),
        ("layers", ("hidden:3",), "compares two or more variants, got hidden:3"),
        ("layers", ("hidden:1", "3"), "--set reads = 3"),
        ("loss", ("focal", "hinge"), "--set loss.kind = 'hinge': Input should be 'cross-entropy'"),
        ("data", ("0", "8"), "--set training_rows = 0: Input should be greater than 0"),
        ("llm", (), "study llm has no default values: name them with --values"),
        ("captions", (), "study captions needs captioned candidates"),
    ],
)
def test_a_wrong_choice_is_refused(inputs: StudyInputs, choice: str, values: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        variants(inputs, choice, *values)
    assert message in str(caught.value)
