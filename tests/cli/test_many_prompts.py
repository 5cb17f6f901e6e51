import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.command import CommandLine, refusal

from forejudge.cli.app import main
from forejudge.result import SearchRecord

PROMPTS = [f"a photo of {number} red circles" for number in range(40)]
N = ("--n", "4")
SECONDS_TO_FIRST = 120


@pytest.fixture(scope="module")
def prompts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("\n".join(PROMPTS))
    return path


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, prompts_file: Path, tiny_models: tuple[str, ...]) -> Path:
    """The folder of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.raises(SystemExit) as ended:
        main(["generate", "--prompts", str(prompts_file), "--out", str(out), *N, *tiny_models])
    assert ended.value.code == 0
    return out


def pictures(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("*/samples/*.png")}


def judged(out: Path) -> dict[str, object]:
    """All that records say but for times."""
    records = {path.parent.parent.name: json.loads(path.read_text()) for path in out.glob("*/results/*.json")}
    return {name: {**record, "timings": None} for name, record in records.items()}


def written_at(out: Path) -> dict[str, int]:
    return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in out.glob("*/*/*")}


def test_layout_is_that_of_geneval(whole_run: Path) -> None:
    folders = sorted(path.name for path in whole_run.iterdir() if path.is_dir())
    assert folders == [f"{number:05}" for number in range(40)]
    files = sorted(path.relative_to(whole_run / "00007").as_posix() for path in (whole_run / "00007").glob("**/*.*"))
    assert files == ["metadata.jsonl", "results/0000.json", "samples/0000.png"]
    assert json.loads((whole_run / "00007" / "metadata.jsonl").read_text()) == {"prompt": PROMPTS[7]}
    record = SearchRecord.model_validate_json((whole_run / "00007" / "results" / "0000.json").read_text())
    assert (record.prompt, record.n) == (PROMPTS[7], 4)


def hear_ctrl_c() -> None:
    """Also where the tests themselves run in the background of a script, which is deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("stop", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)], ids=["ctrl-c", "kill-9"]
)
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(
    generate: CommandLine, prompts_file: Path, whole_run: Path, tmp_path: Path, stop: signal.Signals, status: int
) -> None:
    out = tmp_path / "out"
    arguments = ["generate", "--prompts", str(prompts_file), "--out", str(out), *N]
    command = [sys.executable, "-c", "from forejudge.cli.app import main; main()", *arguments, *generate.options]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c)
    wait_for(out / "00000" / "samples" / "0000.png", run)
    run.send_signal(stop)
    said, errors = run.communicate(timeout=60)
    made = written_at(out)
    done = len(pictures(out))
    assert (run.returncode, said) == (status, ""), errors
    assert 0 < done < len(PROMPTS)
    if stop == signal.SIGINT:
        assert errors == f"error: interrupted: {len(PROMPTS) - done} images are left, the same command makes them\n"

    outcome = generate(*arguments)
    assert outcome.status == 0
    assert f"{len(PROMPTS) - done} were made now" in outcome.out
    kept = {name for name in pictures(out) if name in made}
    assert len(kept) == done
    assert {name: written_at(out)[name] for name in kept} == {name: made[name] for name in kept}, "made again"
    assert pictures(out) == pictures(whole_run)
    assert judged(out) == judged(whole_run)


def wait_for(path: Path, run: subprocess.Popen[str]) -> None:
    """Until a file is there, as long as the process runs."""
    end = time.monotonic() + SECONDS_TO_FIRST
    while not path.exists():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end, "no picture was made in time"
        time.sleep(0.002)


def test_what_is_complete_is_not_made_again(
    generate: CommandLine, prompts_file: Path, whole_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forejudge.cli.request.Request.load", None)
    before = written_at(whole_run)
    outcome = generate("generate", "--prompts", prompts_file, "--out", whole_run, *N)
    assert outcome.status == 0
    assert "40 images of 40 prompts" in outcome.out
    assert "0 were made now" in outcome.out
    assert written_at(whole_run) == before


def test_a_picture_without_its_record_is_made_again(generate: CommandLine, whole_run: Path, tmp_path: Path) -> None:
    Path("two.txt").write_text("\n".join(PROMPTS[:2]))
    generate("generate", "--prompts", "two.txt", "--out", tmp_path / "out", *N)
    (tmp_path / "out/00000/results/0000.json").unlink()
    (tmp_path / "out/00001/samples/0000.png").unlink()
    outcome = generate("generate", "--prompts", "two.txt", "--out", tmp_path / "out", *N)
    assert "2 were made now" in outcome.out
    assert pictures(tmp_path / "out").items() <= pictures(whole_run).items()


def test_other_settings_are_refused(generate: CommandLine, prompts_file: Path, whole_run: Path) -> None:
    line = refusal(generate("generate", "--prompts", prompts_file, "--out", whole_run, "--n", "2"), 2)
    assert "was made with n = 4, this run has n = 2" in line


def test_other_prompts_are_refused(generate: CommandLine, whole_run: Path) -> None:
    Path("other.txt").write_text("\n".join([PROMPTS[0], "a photo of a star"]))
    line = refusal(generate("generate", "--prompts", "other.txt", "--out", whole_run, *N), 2)
    assert PROMPTS[1] in line
    assert "other.txt, line 2" in line


def test_json_lists_every_record(generate: CommandLine) -> None:
    metadata = '{"tag": "colors", "include": [], "prompt": "a photo of a red circle"}'
    Path("prompts.jsonl").write_text(f'{metadata}\n{{"prompt": "a photo of a star"}}\n')
    arguments = ("generate", "--prompts", "prompts.jsonl", "--images-per-prompt", "2", "--n", "1", "--json")
    outcome = generate(*arguments)
    assert outcome.err == ""
    records = [SearchRecord.model_validate(record) for record in json.loads(outcome.out)]
    found = [(record.prompt, record.settings.image_index) for record in records]
    assert found == [(prompt, image) for prompt in ("a photo of a red circle", "a photo of a star") for image in (0, 1)]
    assert Path("forejudge-out/00000/metadata.jsonl").read_text() == metadata + "\n"
    assert sorted(pictures(Path("forejudge-out"))) == [
        f"{prompt:05}/samples/{image:04}.png" for prompt in (0, 1) for image in (0, 1)
    ]
    assert generate(*arguments).out == outcome.out


def test_a_prompt_that_is_too_long_is_found_before_the_work_begins(generate: CommandLine) -> None:
    Path("prompts.txt").write_text("a red circle\n\n" + "a blue square " * 110 + "\na star\n")
    line = refusal(generate("generate", "--prompts", "prompts.txt"), 2)
    assert "prompts.txt, line 3: the prompt has" in line
    assert "would be cut" in line
    assert list(Path("forejudge-out").iterdir()) == []


def test_a_disk_that_is_full_loses_nothing_made_before(generate: CommandLine, whole_run: Path, tmp_path: Path) -> None:
    Path("two.txt").write_text("\n".join(PROMPTS[:2]))
    arguments = ("generate", "--prompts", "two.txt", "--out", tmp_path / "out", *N)
    record = (whole_run / "00000/results/0000.json").stat().st_size
    picture = (whole_run / "00000/samples/0000.png").stat().st_size
    assert record < picture
    with largest_file(picture - 1):
        line = refusal(generate(*arguments), 1)
    assert "samples/0000.png cannot be written (File too large)" in line
    assert list((tmp_path / "out/00000/samples").iterdir()) == []
    assert generate(*arguments).status == 0
    assert pictures(tmp_path / "out").items() <= pictures(whole_run).items()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow larger: the nearest thing to a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
