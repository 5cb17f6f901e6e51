"""`--dry-run`: everything is resolved, checked and measured, and nothing is left."""

import json
from pathlib import Path

import pytest
from tests.cli.command import CommandLine, Outcome, refusal
from tests.training.tiny_run import TinyRun

from forejudge.cli import dry_run
from forejudge.training.work import Work

ENDING = "nothing was written; without --dry-run the run begins"
PROMPT = '{"tag": "colors", "include": [{"class": "circle", "count": 1, "color": "red"}], "prompt": "a red circle"}'


def shown(outcome: Outcome) -> tuple[dict[str, object], dict[str, str]]:
    """The recipe, and each line below it by its name."""
    assert outcome.status == 0, outcome
    recipe, end, rest = outcome.out.partition("\n}\n")
    *lines, ending = rest.splitlines()
    assert ending == ENDING
    return json.loads(recipe + end), dict(line.split(": ", 1) for line in lines)


@pytest.fixture
def drawn(forejudge: CommandLine, tiny_generator: Path) -> CommandLine:
    """`label` or `caption` by the miniature's recipe, of the tiny generator's pictures."""
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
    assert "(from 8 candidates drawn in " in lines["time on cpu"]
    outcome = drawn(command)
    assert outcome.status == 0, outcome
    size = lines["disk"].removeprefix("the states to be recorded ").partition(",")[0]
    assert f"the states of all 24 rows take {size}" in outcome.err
    assert shown(drawn(command, "--dry-run"))[1]["work"] == "0 candidates of 0 prompts"
    assert "made with candidates = 8" in refusal(drawn(command, "--dry-run", "--candidates", "4"), 2)


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
def test_what_could_not_be_labelled_is_refused(
    drawn: CommandLine, arguments: list[str], status: int, said: str
) -> None:
    assert said in refusal(drawn("label", "--dry-run", *arguments), status)


def test_an_unknown_captioner_is_refused_before_the_generator_is_looked_for(drawn: CommandLine) -> None:
    said = refusal(drawn("caption", "--captioner", "nobody", "--generator", "not looked for"), 2)
    assert "unknown captioner 'nobody'" in said


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
    assert "(from 2 batches of 8 candidates learnt from in " in lines["time on cpu"]
    assert list(Path().iterdir()) == []
    line = refusal(forejudge("train", stage, *inputs, *models, *changes, folder, "none"), 1)
    assert "none/settings.json is missing" in line


def test_the_recipe_names_the_generator_of_a_training(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    """What is missing here is its pipeline, as nothing of the hub is in the cache."""
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
    work = Work("much", 10**15, {"the states": 10**18}, 7200.0, "a guess")
    with pytest.raises(Exception, match=r"out: the states take 1000000000\.0 GB and .* are free"):
        dry_run.show_work(work, Path("out"), "cpu")
    said = forejudge.capture.readouterr().out
    assert "time on cpu: about 2.0 h (from a guess)" in said
    assert ENDING not in said
