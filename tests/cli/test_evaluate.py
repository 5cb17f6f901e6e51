"""`forejudge eval`: from the options to figures, and what it refuses."""

import json
from pathlib import Path

import pytest

from forejudge.evaluation import suite
from forejudge.miniature.evaluator import miniature_benchmark
from tests.support.command import CommandLine, refusal


@pytest.fixture
def evaluate(forejudge: CommandLine, tiny_models: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """With the tiny models, on one case of each task."""
    monkeypatch.setattr(suite, "_ROUNDS", 1)
    lines = [line.metadata for line in miniature_benchmark(1).lines]
    Path("prompts.jsonl").write_text("\n".join(lines) + "\n")
    test = ("--benchmark", "prompts.jsonl", "--evaluator", "geneval-miniature", "--n", "1,2", "--seeds", "1")
    return CommandLine(forejudge.capture, (*tiny_models, *test, "--budget-ms", "1000000,2000000"))


def test_all_strategies_are_reported_in_figures_and_tables(evaluate: CommandLine, tiny_verifier: Path) -> None:
    Path("again").symlink_to(tiny_verifier)
    scorer = "tests.support.scorer:first_pixel"
    asked = ("--verifier", scorer, "--combine", f"verifier,{scorer}", "--controls", "--steps", "2")
    done = evaluate("eval", *asked, "--record-for", "simulate", "--out", "out", "--figures", "figures.json")
    assert done.status == 0, done.err
    found = json.loads(Path("figures.json").read_text())
    assert set(found["verifiers"]) == {"verifier", scorer, "states shuffled", "states zeroed"}
    assert set(found["baselines"]) == {"1 step", "2 steps"}
    strategies = {row["strategy"] for row in found["best_of_n"]}
    assert {f"mean rank of verifier, {scorer}", f"log-odds of verifier, {scorer}", "random"} <= strategies
    (first, *_) = found["equal_time"]
    assert (first["budget"], first["strategy"], first["n"]) == (1_000_000, "verifier", 2)
    assert {row["strategy"] for row in found["equal_time"]} == {"verifier", scorer, "1 step", "2 steps"}
    assert set(found["costs"]["searches"]) == {"verifier", scorer}
    assert found["settings"]["prompts"] == found["test_cases"] == 6
    costs = json.loads(Path("out/policy_costs.json").read_text())
    assert set(costs["verifiers"]) == {"verifier", scorer}
    assert list(costs["verifiers"]["verifier"]["batch_ms"]) == ["1", "2", "4", "8", "16", "32"]
    assert found["settings"]["second_step"] is True
    assert "Best-of-N on 6 test cases" in done.out
    assert "written to out/figures.json and figures.json" in done.out
    assert json.loads(Path("out/figures.json").read_text()) == found  # for `forejudge report`


def test_searches_that_end_by_their_verdicts_are_reported_at_equal_mean_time(evaluate: CommandLine) -> None:
    asked = ("--adaptive", "until", "--adaptive", "n=2,refine_below=0.9")
    done = evaluate("eval", *asked, "--out", "out")
    assert done.status == 0, done.err
    found = json.loads(Path("out/figures.json").read_text())
    rows = found["equal_mean_time"]
    assert {row["policy"] for row in rows} >= {"fixed", "until", "n=2,refine_below=0.9"}, "pairs cost two"
    assert rows[0]["settings"] == {"n=2": 1.0}
    assert found["settings"]["second_step_below"] == 0.9
    costs = json.loads(Path("out/policy_costs.json").read_text())["verifiers"]["verifier"]
    assert costs["second_step_ms"] > 0
    assert "At equal mean time" in done.out


def test_shards_are_merged_and_then_have_figures(evaluate: CommandLine) -> None:
    for number in (1, 2):
        done = evaluate("eval", "--shard", f"{number}/2", "--out", f"part{number}")
        assert "6 prompts are left to the other shards" in done.out, "three, and each without a verifier"
        assert not Path(f"part{number}/figures.json").exists()
    merged = CommandLine(evaluate.capture)("eval", "merge", "part1", "part2")
    assert merged.out.splitlines() == [
        "3 prompts merged from part2",
        "complete: run the same eval with --out to report",
    ]
    assert evaluate("eval", "--out", "part1").status == 0
    assert json.loads(Path("part1/figures.json").read_text())["test_cases"] == 6


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--n", "0,2"), "--n '0,2' is not a list of numbers from 1"),
        (("--budget-ms", "soon"), "--budget-ms 'soon' is not a list of numbers"),
        (("--budget-ms", "1"), "the budget of 1 holds no candidate of verifier"),
        (("--combine", "verifier,clip"), "--combine 'verifier,clip': expected two or more verifiers out of verifier"),
        (("--combine", "verifier=much,clip"), "the weight 'much' is not a number"),
        (("--combine", "verifier=nan,clip"), "the weight 'nan' is not a number"),
        (
            ("--n", "10000", "--images-per-prompt", "10000"),
            "candidates x images per prompt x seeds = 100000000: expected",
        ),
        (("--benchmark", "geneval"), "give its own file"),
        (("--evaluator", "no-such-program"), "unknown evaluator 'no-such-program'"),
        (("--record-for", "fun"), "--record-for 'fun': expected simulate"),
        (("--adaptive", "cost"), "--adaptive 'cost': 'cost' is unknown"),
        (("--adaptive", "price"), "--adaptive 'price' needs a calibrated verifier, and for a price one with a prior"),
        (("--shard", "3/2"), "shard '3/2': expected NUMBER/COUNT"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(evaluate: CommandLine, asked: tuple[str, ...], said: str) -> None:
    done = evaluate("eval", *asked, "--out", "out")
    assert done.status == 2
    assert said in done.err.splitlines()[-1]
    assert not Path("out/00000").exists() or asked[0] == "--budget-ms", "refused before anything is generated"


def test_figures_that_cannot_be_written_are_refused_before_anything_is_generated(evaluate: CommandLine) -> None:
    said = refusal(evaluate("eval", "--out", "out", "--figures", ".."), 1)
    assert ".. is a folder or a device, which is not replaced" in said
    assert not Path("out").exists()


@pytest.fixture
def evaluate_one(evaluate: CommandLine) -> CommandLine:
    """On a single prompt."""
    Path("prompts.jsonl").write_text(miniature_benchmark(1).lines[0].metadata + "\n")
    return evaluate


def test_a_finished_evaluation_takes_further_baselines(
    evaluate_one: CommandLine, tiny_generator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All strategies are timed anew, in turns; what is known of this device and these weights is not."""
    assert evaluate_one("eval", "--out", "out").status == 0
    asked = ("--steps", "2", "--baseline", tiny_generator, "--out", "out")
    assert evaluate_one("eval", *asked).status == 0
    figures = json.loads(Path("out/figures.json").read_text())
    baselines = {"1 step", "2 steps", "generator, 2 steps"}
    assert figures["baselines"].keys() == figures["costs"]["baseline_ms"].keys() == baselines
    assert {row["competitor"] for row in figures["competitor_time"]} <= baselines
    costs = Path("out/costs.json").read_bytes()
    monkeypatch.setattr(suite, "time_rounds", None)  # must not be called
    assert evaluate_one("eval", *asked).status == 0
    assert evaluate_one("eval", "--out", "out").status == 0
    assert Path("out/costs.json").read_bytes() == costs
    assert "out was begun with seeds = 1" in refusal(evaluate_one("eval", "--seeds", "2", *asked), 2)


def test_costs_of_another_device_are_measured_anew(evaluate_one: CommandLine) -> None:
    assert evaluate_one("eval", "--out", "out").status == 0
    costs = json.loads(Path("out/costs.json").read_text())
    timed = costs["timed"]
    costs["timed"] = timed | {"device": "an abacus"}
    costs["searches"]["verifier"]["fixed_flops"] += 1
    Path("out/costs.json").write_text(json.dumps(costs))
    assert evaluate_one("eval", "--out", "out").status == 0
    again = json.loads(Path("out/costs.json").read_text())
    assert again["timed"] == timed
    assert again["searches"]["verifier"]["fixed_flops"] + 1 == costs["searches"]["verifier"]["fixed_flops"]


def test_broken_costs_are_named_with_what_to_do(evaluate_one: CommandLine) -> None:
    Path("out").mkdir()
    Path("out/costs.json").write_text("[1]")
    said = refusal(evaluate_one("eval", "--out", "out"), 1)
    assert "out/costs.json: " in said
    assert "delete the file, and the same eval measures costs anew" in said


def test_two_verifiers_of_one_name_are_refused(evaluate: CommandLine, tiny_verifier: Path) -> None:
    assert "have one name: rename the folder of one" in refusal(evaluate("eval", "--verifier", tiny_verifier), 2)


def test_a_part_of_another_evaluation_is_refused(evaluate: CommandLine) -> None:
    evaluate("eval", "--shard", "1/6", "--out", "one")
    evaluate("eval", "--shard", "1/6", "--out", "other", "--seeds", "2")
    done = CommandLine(evaluate.capture)("eval", "merge", "one", "other")
    assert "other was begun with seeds = 2, this run has seeds = 1" in refusal(done, 2)


def test_merging_what_is_no_evaluation_is_refused(forejudge: CommandLine) -> None:
    assert "settings.json is missing" in refusal(forejudge("eval", "merge", "one", "other"), 1)
