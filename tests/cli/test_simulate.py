"""`forejudge simulate`: from a recording to a table, a report and a plot."""

import json
from pathlib import Path

import pytest

from tests.support.command import CommandLine
from tests.support.recordings import recording

SMALL = ("--n", "1,2", "--until", "0.9", "--price", "0.01")


@pytest.fixture
def verdicts(tmp_path: Path) -> Path:
    path = tmp_path / "verdicts.parquet"
    made_up = recording([[0.1, 0.6, 0.9], [0.2, 0.8, 0.3]], [[0, 1, 1], [0, 1, 0]], [[1, 1, 1], [0, 1, 0]])
    made_up.write(path)
    return path


def test_a_recording_gives_a_table_a_report_and_a_plot(forejudge: CommandLine, verdicts: Path) -> None:
    done = forejudge("simulate", str(verdicts), *SMALL, "--refine-below", "0.5", "--save", "again.parquet")
    assert done.status == 0, done.err
    report = json.loads(Path("runs/simulation/simulation.json").read_text())
    assert [rule["policy"] for rule in report["rules"]] == [
        *["fixed", "fixed", "until", "expected improvement"] * 2,
        "cascade",
    ]
    assert report["rules"][4]["options"] == {"n": 1, "refine_below": 0.5}
    assert (report["verifier"], report["unit"], report["second_step_cost"]) == ("late", "candidates", 1.41)
    assert "against mean cost in candidates" in done.out
    assert Path("runs/simulation/simulation.png").read_bytes().startswith(b"\x89PNG")
    assert Path("again.parquet").read_bytes() == verdicts.read_bytes()


def test_deadlines_are_simulated_in_milliseconds(forejudge: CommandLine, verdicts: Path) -> None:
    done = forejudge("simulate", str(verdicts), *SMALL, "--unit", "ms", "--budget-ms", "60", "--out", "out")
    assert done.status == 0, done.err
    (*_, deadline) = json.loads(Path("out/simulation.json").read_text())["rules"]
    assert (deadline["policy"], deadline["options"]) == ("deadline", {"budget_ms": 60})
    assert 0 < deadline["mean_cost"] <= 60


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--unit", "hours"), "--unit 'hours': expected candidates or ms"),
        (("--verifier", "clip"), "--verifier 'clip' is not in the recording: expected one of late, early"),
        (("--price", "1.5"), "--price '1.5' is not a list of numbers from 0 to 1"),
        (("--budget-ms", "60"), "a deadline is simulated in ms: give --unit ms"),
    ],
)
def test_what_cannot_be_simulated_is_refused_in_one_line(
    forejudge: CommandLine, verdicts: Path, asked: tuple[str, ...], said: str
) -> None:
    done = forejudge("simulate", str(verdicts), *SMALL, *asked)
    assert done.status == 2
    assert said in done.err.splitlines()[-1]
    assert not Path("runs").exists()
