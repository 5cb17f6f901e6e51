"""`forejudge train`: both stages from the command line, and what they refuse."""

import json
from pathlib import Path

import pytest
from tests.cli.command import CommandLine, Outcome, refusal
from tests.tiny import save_tiny_generator
from tests.training.tiny_run import TinyRun, relabelled

QUICK = ("--set", "steps=2", "--set", "batch_size=8", "--set", "evaluate_every=2", "--reads", "hidden:2")


def command(forejudge: CommandLine, tiny_run: TinyRun, stage: str, *arguments: str | Path) -> Outcome:
    """A stage with everything it needs; of an option that comes again, the last one counts."""
    folders = {"align": "--captions", "verify": "--labels"}
    needed = (folders[stage], tiny_run.training, "--validation", tiny_run.validation, "--out", "out")
    models = ("--generator", tiny_run.folder / "generator", "--set", f"language_model={tiny_run.language_model}")
    return forejudge("train", stage, *needed, *models, *QUICK, *arguments)


def test_one_stage_goes_on_from_the_other(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    first = command(forejudge, tiny_run, "align", "--out", "aligned")
    assert first.status == 0, first
    assert first.out == "written to aligned; next: forejudge train verify --aligned aligned\n"
    second = command(forejudge, tiny_run, "verify", "--aligned", "aligned", "--set", "loss.kind=focal")
    assert second.status == 0, second
    assert "hidden:2" in second.out
    assert "pair accuracy" in second.out
    assert second.out.splitlines()[-1].startswith("written to out; try: forejudge generate PROMPT --generator ")
    recipe = json.loads(Path("out/recipe.json").read_text())
    assert (recipe["steps"], recipe["loss"]["kind"], recipe["batch_size"]) == (2, "focal", 8)


def test_a_finished_run_is_shown_again(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    first = command(forejudge, tiny_run, "verify")
    assert first.status == 0, first
    assert command(forejudge, tiny_run, "verify").out == first.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "tiny"], "unknown recipe 'tiny': expected one of miniature, sana-sprint-1.6b"),
        (["--set", "step=3"], "--set 'step=3': unknown field; there are reads, language_model, "),
        (["--set", "steps"], "--set 'steps': expected name=value"),
        (["--set", "steps=-1"], "--set steps = -1: "),
        (["--reads", "hidden"], "--set reads = hidden: "),
        (["--dtype", "float3"], "dtype 'float3'"),
        (["--generator", "nonesuch"], "unknown generator 'nonesuch'"),
    ],
)
@pytest.mark.parametrize("stage", ["align", "verify"])
def test_what_cannot_be_is_refused(
    forejudge: CommandLine, tiny_run: TinyRun, stage: str, arguments: list[str], said: str
) -> None:
    assert said in refusal(command(forejudge, tiny_run, stage, *arguments), 2)
    assert not Path("out").exists()


def test_an_aligned_connector_that_reads_something_else_is_refused(
    forejudge: CommandLine, tiny_run: TinyRun, aligned: Path
) -> None:
    line = refusal(command(forejudge, tiny_run, "verify", "--aligned", aligned, "--reads", "latent"), 1)
    assert "has reads = hidden:2, the recipe latent: make them the same" in line


def test_unfinished_labels_are_refused(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    relabelled(tiny_run.training, Path("labels"), lambda row: {})
    Path("labels/rows/00000.parquet").unlink()
    assert "1 of its 1 blocks are missing" in refusal(command(forejudge, tiny_run, "verify", "--labels", "labels"), 1)


@pytest.mark.parametrize("is_right", [True, False])
def test_labels_of_one_kind_are_refused(forejudge: CommandLine, tiny_run: TinyRun, is_right: bool) -> None:
    relabelled(tiny_run.training, Path("labels"), lambda row: {"correct": is_right})
    line = refusal(command(forejudge, tiny_run, "verify", "--labels", "labels"), 2)
    assert f"labels: {120 if is_right else 0} of 120 candidates are right, but a verifier needs right and wrong" in line


def test_labels_of_another_generator_are_refused(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    other = save_tiny_generator(Path("other"), seed=5)
    line = refusal(command(forejudge, tiny_run, "verify", "--generator", other), 1)
    assert "was drawn by weights " in line
    assert "draw it anew" in line


def test_candidates_without_captions_are_refused(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    relabelled(tiny_run.training, Path("none"), lambda row: {}, without=("caption",))
    assert "none has no column caption" in refusal(command(forejudge, tiny_run, "align", "--captions", "none"), 1)


def test_another_recipe_in_its_folder_is_refused(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    assert command(forejudge, tiny_run, "align").status == 0
    line = refusal(command(forejudge, tiny_run, "align", "--set", "steps=3"), 2)
    assert "out was begun with steps = 2, this run has 3: choose another --out" in line


def test_only_the_first_of_several_processes_shows_the_result(
    forejudge: CommandLine, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are done before it is written."""
    assert command(forejudge, tiny_run, "verify").out != ""
    monkeypatch.setenv("RANK", "1")
    assert command(forejudge, tiny_run, "verify").out == ""
