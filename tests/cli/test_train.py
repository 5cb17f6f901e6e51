"""`forejudge train`: both stages from the command line, and what they refuse."""

import json
from errno import ENOSPC
from pathlib import Path

import pytest
from safetensors import SafetensorError

from forejudge.cli import train
from forejudge.training.estimate import CostEstimate
from tests.support.command import CommandLine, CommandResult, refusal
from tests.support.tiny import save_tiny_generator
from tests.support.tiny_run import TinyRun, relabeled

ENDING = "nothing was written; without --dry-run the run begins"
PROMPT = '{"tag": "colors", "include": [{"class": "circle", "count": 1, "color": "red"}], "prompt": "a red circle"}'


def shown(outcome: CommandResult) -> tuple[dict[str, object], dict[str, str]]:
    """The recipe, and each line below it by its name."""
    assert outcome.status == 0, outcome
    recipe, end, rest = outcome.out.partition("\n}\n")
    *lines, ending = rest.splitlines()
    assert ending == ENDING
    return json.loads(recipe + end), dict(line.split(": ", 1) for line in lines)


@pytest.fixture
def drawn(forejudge: CommandLine, tiny_generator: Path) -> CommandLine:
    """`label` or `caption` by the miniature's recipe, of the tiny generator's images."""
    Path("prompts.jsonl").write_text(f"{PROMPT}\n" * 3)
    options = ("--recipe", "miniature", "--generator", str(tiny_generator), "--record", "hidden:2")
    return CommandLine(forejudge.capture, (*options, "--prompts", "prompts.jsonl", "--out", "new/out"))


@pytest.mark.parametrize(("command", "seen_by"), [("label", "evaluator"), ("caption", "captioner")])
def test_a_drawing_is_planned_and_then_as_planned(
    drawn: CommandLine, tiny_generator: Path, command: str, seen_by: str
) -> None:
    recipe, lines = shown(drawn(command, "--dry-run"))
    assert sorted(path.name for path in Path().iterdir()) == ["prompts.jsonl"]
    assert recipe == {
        "generator": str(tiny_generator),
        "candidates": 8,
        "record": "hidden:2",
        seen_by: {"label": "geneval-miniature", "caption": "miniature"}[command],
    }
    assert lines["work"] == "24 candidates of 3 prompts"
    assert lines["operations"].endswith(" FLOP")
    assert lines["time on cpu"].startswith("about ")
    assert "(from 8 candidates generated in " in lines["time on cpu"]
    outcome = drawn(command)
    assert outcome.status == 0, outcome
    size = lines["disk"].removeprefix("the states to be recorded ").partition(",")[0]
    assert f"the states of all 24 rows take {size}" in outcome.err
    assert shown(drawn(command, "--dry-run"))[1]["work"] == "0 candidates of 0 prompts"
    assert "begun with candidates = 8" in refusal(drawn(command, "--dry-run", "--candidates", "4"), 2)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--prompts", "none.jsonl"], 2, "none.jsonl cannot be read"),
        (["--generator", "nonesuch"], 2, "unknown generator 'nonesuch'"),
        (["--evaluator", "nonesuch"], 2, "unknown evaluator 'nonesuch'"),
        (["--recipe", "nonesuch"], 2, "unknown recipe 'nonesuch'"),
        (["--recipe", "pixart-dmd"], 2, "the evaluator geneval needs its detector"),
        (["--record", "hidden:5"], 1, "reads after 5 blocks, but the generator has only 4"),
        (["--out", "prompts.jsonl"], 1, "prompts.jsonl cannot be written (Not a directory)"),
    ],
)
def test_a_run_that_could_not_be_labeled_is_refused(
    drawn: CommandLine, arguments: list[str], status: int, said: str
) -> None:
    assert said in refusal(drawn("label", "--dry-run", *arguments), status)


def test_an_unknown_captioner_is_refused_before_the_generator_is_looked_for(drawn: CommandLine) -> None:
    said = refusal(drawn("caption", "--captioner", "unknown", "--generator", "not looked for"), 2)
    assert "unknown captioner 'unknown'" in said


def test_without_a_recipe_names_are_asked_for(forejudge: CommandLine) -> None:
    outcome = forejudge("label", "--prompts", "prompts.jsonl", "--out", "out")
    assert "--generator is missing: name one, or a --recipe" in refusal(outcome, 2)


@pytest.mark.parametrize(("stage", "folder"), [("align", "--captions"), ("verify", "--labels")])
def test_a_training_is_planned(forejudge: CommandLine, tiny_run: TinyRun, stage: str, folder: str) -> None:
    models = ("--generator", tiny_run.folder / "generator", "--set", f"language_model={tiny_run.language_model}")
    changes = ("--reads", "hidden:2", "--set", "batch_size=8", "--dry-run")
    inputs = (folder, tiny_run.training, "--validation", tiny_run.validation, "--out", "out")
    recipe, lines = shown(forejudge("train", stage, *inputs, *models, *changes))
    assert (recipe["reads"], recipe["batch_size"]) == ("hidden:2", 8)
    assert (lines["out"], lines[folder[2:]]) == ("out", str(tiny_run.training))
    assert lines["work"].startswith(f"{recipe['steps']} steps of 8 candidates")
    assert "(from 2 batches of 8 candidates trained on in " in lines["time on cpu"]
    assert list(Path().iterdir()) == []
    line = refusal(forejudge("train", stage, *inputs, *models, *changes, folder, "none"), 1)
    assert "none/settings.json is missing" in line


def test_the_recipe_names_the_generator_of_a_training(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    """The error names its pipeline, because the cache is empty."""
    inputs = ("--labels", tiny_run.training, "--validation", tiny_run.validation, "--out", "out")
    line = refusal(forejudge("train", "verify", "--recipe", "pixart-dmd", *inputs), 1)
    assert "PixArt-alpha/PixArt-XL-2-512x512 cannot be loaded" in line


def test_prompts_are_counted_by_the_recipe(forejudge: CommandLine) -> None:
    Path("objects.txt").write_text("\n".join(f"thing {number}" for number in range(40)))
    arguments = ("prompts", "geneval", "--objects", "objects.txt", "--out", "new/prompts.jsonl")
    outcome = forejudge(*arguments, "--recipe", "pixart-dmd", "--dry-run")
    assert outcome.status == 0, outcome
    assert outcome.out.startswith("5900 prompts for new/prompts.jsonl: ")
    assert outcome.out.splitlines()[-1] == ENDING
    assert not Path("new").exists()
    assert "--count is missing: name one, or a --recipe" in refusal(forejudge(*arguments), 2)


def test_a_disk_that_is_too_small_ends_it(forejudge: CommandLine) -> None:
    work = CostEstimate("much", 10**15, {"the states": 10**18}, 7200.0, "a guess")
    with pytest.raises(Exception, match=r"out: the states take 1000000000\.0 GB and .* are free"):
        train.print_cost_estimate(work, Path("out"), "cpu")
    said = forejudge.capture.readouterr().out
    assert "time on cpu: about 2.0 h (from a guess)" in said
    assert ENDING not in said


SECOND_OF_TWO = {
    "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip
QUICK = ("--set", "steps=2", "--set", "batch_size=8", "--set", "eval_steps=2", "--reads", "hidden:2")


def command(forejudge: CommandLine, tiny_run: TinyRun, stage: str, *arguments: str | Path) -> CommandResult:
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
        (["--recipe", "tiny"], "unknown recipe 'tiny': expected one of miniature, miniature-cross-attention, "),
        (["--set", "step=3"], "--set 'step=3': unknown field; expected one of reads, language_model, "),
        (["--set", "steps"], "--set 'steps': expected name=value"),
        (["--set", "steps=-1"], "--set steps = -1: "),
        (["--reads", "hidden"], "--set reads = 'hidden': "),
        (["--dtype", "float3"], "dtype 'float3'"),
        (["--generator", "nonesuch"], "unknown generator 'nonesuch'"),
    ],
)
@pytest.mark.parametrize("stage", ["align", "verify"])
def test_wrong_options_are_refused(
    forejudge: CommandLine, tiny_run: TinyRun, stage: str, arguments: list[str], said: str
) -> None:
    assert said in refusal(command(forejudge, tiny_run, stage, *arguments), 2)
    assert not Path("out").exists()


def test_an_aligned_connector_that_reads_something_else_is_refused(
    forejudge: CommandLine, tiny_run: TinyRun, aligned: Path
) -> None:
    line = refusal(command(forejudge, tiny_run, "verify", "--aligned", aligned, "--reads", "latent"), 1)
    assert "has reads = hidden:2, the recipe has latent: make them the same" in line


def test_unfinished_labels_are_refused(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    relabeled(tiny_run.training, Path("labels"), lambda row: {})
    Path("labels/rows/00000.parquet").unlink()
    assert "1 of its 1 row blocks are missing" in refusal(
        command(forejudge, tiny_run, "verify", "--labels", "labels"), 1
    )


@pytest.mark.parametrize("is_right", [True, False])
def test_labels_of_one_kind_are_refused(forejudge: CommandLine, tiny_run: TinyRun, is_right: bool) -> None:
    relabeled(tiny_run.training, Path("labels"), lambda row: {"correct": is_right})
    line = refusal(command(forejudge, tiny_run, "verify", "--labels", "labels"), 2)
    assert f"labels: {120 if is_right else 0} of 120 candidates are right, but a verifier needs right and wrong" in line


def test_labels_of_another_generator_are_refused(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    other = save_tiny_generator(Path("other"), seed=5)
    line = refusal(command(forejudge, tiny_run, "verify", "--generator", other), 1)
    assert "was generated by a generator with digest " in line
    assert "generate it again" in line


def test_candidates_without_captions_are_refused(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    relabeled(tiny_run.training, Path("none"), lambda row: {}, dropped=("caption",))
    assert "none has no column caption" in refusal(command(forejudge, tiny_run, "align", "--captions", "none"), 1)


def test_another_recipe_in_its_folder_is_refused(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    assert command(forejudge, tiny_run, "align").status == 0
    line = refusal(command(forejudge, tiny_run, "align", "--set", "steps=3"), 2)
    assert "out was begun with steps = 2, this run has steps = 3: choose another --out" in line


def test_only_the_first_of_several_processes_shows_the_result(
    forejudge: CommandLine, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are done before it is written."""
    assert command(forejudge, tiny_run, "verify").out != ""
    for name, value in SECOND_OF_TWO.items():
        monkeypatch.setenv(name, value)
    assert command(forejudge, tiny_run, "verify").out == ""


@pytest.mark.parametrize("variables", [{"RANK": "1"}, {"WORLD_SIZE": "2"}, SECOND_OF_TWO | {"RANK": "2"}])
def test_an_environment_of_processes_that_does_not_add_up_is_refused(
    forejudge: CommandLine, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    line = refusal(command(forejudge, tiny_run, "verify", "--generator", "not looked for"), 2)
    assert "expected all of RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT, as torchrun sets them" in line


def test_a_disk_without_room_for_the_checkpoints_is_refused(
    forejudge: CommandLine, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forejudge.files.free_bytes", lambda folder: 10**5)
    line = refusal(command(forejudge, tiny_run, "align"), 1)
    assert "out: checkpoints, for the time of the run, and the verifier take" in line
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("saving", "error"),
    [
        ("safetensors.torch.save_file", SafetensorError("Error while serializing: I/O error: No space left on device")),
        ("torch.save", RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")),
        ("transformers.TrainerState.save_to_json", OSError(ENOSPC, "No space left on device")),
    ],
)
def test_a_disk_that_fills_up_ends_a_training_in_one_line(
    forejudge: CommandLine, tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, saving: str, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(saving, fail)
    outcome = command(forejudge, tiny_run, "align")
    assert (outcome.status, outcome.out) == (1, "")
    *_, line = outcome.err.splitlines()
    assert line.startswith("error: out/checkpoints cannot be written (")
    assert line.endswith("free some space, or choose another --out; what was written before is kept")


def test_a_verifier_is_no_aligned_connector(forejudge: CommandLine, tiny_run: TinyRun, trained_verifier: Path) -> None:
    line = refusal(command(forejudge, tiny_run, "verify", "--aligned", trained_verifier), 1)
    assert "is the result of stage verify: expected a folder of `forejudge train align`" in line
    assert not Path("out").exists()
