import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from tests.cli.command import CommandLine
from tests.tiny import save_tiny_generator

from forejudge.result import SearchRecord

PROMPT = "a photo of a red circle left of a blue square"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def record_in(folder: Path) -> SearchRecord:
    return SearchRecord.model_validate_json((folder / "result.json").read_text())


def picture_in(folder: Path) -> Image.Image:
    with Image.open(folder / "best.png") as picture:
        return picture.copy()


def test_table_and_files(generate: CommandLine) -> None:
    outcome = generate("generate", PROMPT, "--n", "4")
    assert (outcome.status, outcome.err) == (0, "")
    out = Path("forejudge-out")
    assert names(out) == ["best.png", "result.json"]
    assert picture_in(out).size == (64, 64)
    record = record_in(out)
    assert (record.prompt, record.n, record.ended_by) == (PROMPT, 4, "n")
    assert all(str(candidate.seed) in outcome.out for candidate in record.candidates)
    assert all(stage in outcome.out for stage in record.timings)
    assert f"Winner: candidate {record.winner}" in outcome.out


def test_all_shows_every_candidate(generate: CommandLine) -> None:
    generate("generate", PROMPT, "--n", "3", "--all", "--out", "demo")
    demo = Path("demo")
    candidates = ["candidates/0000.png", "candidates/0001.png", "candidates/0002.png"]
    assert names(demo) == ["best.png", *candidates, "contact_sheet.png", "result.json"]
    record = record_in(demo)
    assert [candidate.stage for candidate in record.candidates] == ["image"] * 3
    assert (demo / "best.png").read_bytes() == (demo / candidates[record.winner]).read_bytes()
    assert len({(demo / name).read_bytes() for name in candidates}) == 3


def test_pictures_of_an_earlier_search_do_not_stay(generate: CommandLine) -> None:
    out = Path("forejudge-out")
    generate("generate", PROMPT, "--n", "3", "--all")
    (out / "notes.txt").write_text("mine")
    generate("generate", "a photo of a blue star", "--n", "3", "--top-k", "2")
    assert names(out) == ["best.png", "notes.txt", "result.json", "top_2.png"]


def test_pictures_of_a_stranger_stay(generate: CommandLine) -> None:
    Path("mine").mkdir()
    Path("mine/top_1.png").write_bytes(b"not ours")
    generate("generate", PROMPT, "--n", "1", "--out", "mine")
    assert Path("mine/top_1.png").read_bytes() == b"not ours"


def test_top_k_are_numbered_by_rank(generate: CommandLine) -> None:
    generate("generate", PROMPT, "--n", "4", "--all", "--out", "all")
    generate("generate", PROMPT, "--n", "4", "--top-k", "3", "--out", "top")
    assert names(Path("top")) == ["best.png", "result.json", "top_2.png", "top_3.png"]
    ranked = sorted(record_in(Path("top")).candidates, key=lambda candidate: -candidate.score)
    for rank, candidate in enumerate(ranked[:3], start=1):
        name = "best.png" if rank == 1 else f"top_{rank}.png"
        assert Path("top", name).read_bytes() == Path(f"all/candidates/{candidate.index:04}.png").read_bytes()


def test_json_is_all_that_stdout_holds(generate: CommandLine) -> None:
    outcome = generate("generate", PROMPT, "--n", "2", "--json")
    assert outcome.out == Path("forejudge-out/result.json").read_text()
    assert outcome.err == ""
    assert set(json.loads(outcome.out)["timings"]) == {"encode", "prefix", "verify", "suffix", "decode", "total"}


def test_each_image_of_a_prompt_is_a_search_of_its_own(generate: CommandLine) -> None:
    outcome = generate("generate", PROMPT, "--n", "2", "--images-per-prompt", "2", "--json")
    out = Path("forejudge-out")
    assert names(out) == ["image_0/best.png", "image_0/result.json", "image_1/best.png", "image_1/result.json"]
    first, second = (SearchRecord.model_validate(record) for record in json.loads(outcome.out))
    assert (first.settings.image_index, second.settings.image_index) == (0, 1)
    assert not {candidate.seed for candidate in first.candidates} & {candidate.seed for candidate in second.candidates}


def test_a_candidate_is_made_again_from_its_seed(generate: CommandLine) -> None:
    generate("generate", PROMPT, "--n", "3", "--out", "first")
    record = record_in(Path("first"))
    seed = record.candidates[record.winner].seed
    generate("generate", PROMPT, "--seeds", str(seed), "--out", "again")
    again = record_in(Path("again"))
    assert (again.settings.seed, [candidate.seed for candidate in again.candidates]) == (None, [seed])
    one, other = (picture_in(folder).tobytes() for folder in (Path("first"), Path("again")))
    assert max(abs(left - right) for left, right in zip(one, other, strict=True)) <= 1


def test_none_passed_is_said_and_the_best_returned(
    forejudge: CommandLine, tiny_generator: Path, tiny_verifier: Path
) -> None:
    shutil.copytree(tiny_verifier, "doubtful")
    config = json.loads(Path("doubtful/verifier.json").read_text())
    config["calibration"] = {"temperature": 1.0, "bias": -9.0}
    Path("doubtful/verifier.json").write_text(json.dumps(config))
    outcome = forejudge(
        "generate", PROMPT, "--until", "0.9", "--max-n", "2", "--generator", tiny_generator, "--verifier", "doubtful"
    )
    assert outcome.status == 0
    assert "No candidate passed" in outcome.out
    assert "Ended by max-n after 2 candidates" in outcome.out
    assert Path("forejudge-out/best.png").is_file()


def test_warnings_are_shown_beside_the_json(forejudge: CommandLine, tiny_verifier: Path, tmp_path: Path) -> None:
    retrained = save_tiny_generator(tmp_path / "retrained", seed=5)
    outcome = forejudge("generate", PROMPT, "--n", "1", "--json", "--generator", retrained, "--verifier", tiny_verifier)
    (warning,) = json.loads(outcome.out)["settings"]["warnings"]
    assert outcome.err == f"warning: {warning}\n"


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (("--until", "0.000001"), "Ended by until at candidate 0"),
        (("--budget-ms", "60000", "--max-n", "3"), "Ended by max-n after 3 candidates"),
    ],
)
def test_the_limit_that_ended_the_search_is_named(generate: CommandLine, limit: tuple[str, ...], said: str) -> None:
    assert said in generate("generate", PROMPT, *limit).out
