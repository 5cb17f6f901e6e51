"""`forejudge study` on the command line: the table, the files, and refusals."""

import json
from pathlib import Path

from tests.support.command import CommandLine, refusal
from tests.support.tiny_run import TinyRun


def test_a_study_writes_a_table_a_report_and_a_plot(forejudge: CommandLine, tiny_run: TinyRun) -> None:
    models = ("--generator", tiny_run.folder / "generator", "--set", f"language_model={tiny_run.language_model}")
    rows = ("--labels", tiny_run.training, "--validation", tiny_run.validation, "--out", "studies")
    recipe = ("--set", "reads=hidden:2", "--set", "batch_size=8", "--steps", "2", "--training-seeds", "1")
    outcome = forejudge("study", "loss", "--values", "focal,regression", *rows, *models, *recipe)
    assert outcome.status == 0, outcome
    assert outcome.out.splitlines()[-1] == "written to studies/loss.json and .png"
    assert "focal" in outcome.out
    assert "regression" in outcome.out
    report = json.loads(Path("studies/loss.json").read_text())
    assert (list(report["variants"]), report["n"], report["test_cases"]) == (["focal", "regression"], 4, 16)
    assert Path("studies/loss.png").read_bytes().startswith(b"\x89PNG")
    line = refusal(forejudge("study", "layers", *rows, *models, *recipe), 2)
    assert "study layers compares two or more variants, got hidden:2: name them with --values" in line
    line = refusal(forejudge("study", "color", *rows, *models), 2)
    assert "unknown study 'color': expected one of layers, loss, pooling, data, llm, captions" in line
