"""`forejudge generate`: one prompt, many prompts, resuming, and refusals of one line."""

import itertools
import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel

from forejudge import BestOfN
from forejudge.candidates.searches import SearchConfig, SearchStore
from forejudge.cli.app import main
from forejudge.errors import InvalidRequest
from forejudge.generators import KNOWN_MODELS, GeneratorSpec
from forejudge.options import ModelOptions, SamplingParams, SearchOptions
from forejudge.result import Result, SearchRecord
from tests.support.command import CommandLine, refusal
from tests.support.tiny import save_tiny_generator

PROMPTS = [f"a photo of {number} red circles" for number in range(12)]
N = ("--n", "4")


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


def images(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("*/samples/*.png")}


def judged(out: Path) -> dict[str, object]:
    """All that records say except times."""
    records = {path.parent.parent.name: json.loads(path.read_text()) for path in out.glob("*/results/*.json")}
    return {name: {**record, "timings": None} for name, record in records.items()}


def written_at(out: Path) -> dict[str, int]:
    return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in out.glob("*/*/*")}


def test_layout_is_that_of_geneval(whole_run: Path) -> None:
    folders = sorted(path.name for path in whole_run.iterdir() if path.is_dir())
    assert folders == [f"{number:05}" for number in range(12)]
    files = sorted(path.relative_to(whole_run / "00007").as_posix() for path in (whole_run / "00007").glob("**/*.*"))
    assert files == ["metadata.jsonl", "results/0000.json", "samples/0000.png"]
    assert json.loads((whole_run / "00007" / "metadata.jsonl").read_text()) == {"prompt": PROMPTS[7]}
    record = SearchRecord.model_validate_json((whole_run / "00007" / "results" / "0000.json").read_text())
    assert (record.prompt, record.n) == (PROMPTS[7], 4)


# The command line; the process sends itself a signal in its fourth search.
STOPPED_RUN = """
import itertools, os
from forejudge import BestOfN
from forejudge.cli.app import main

search, calls = BestOfN.__call__, itertools.count(1)

def search_or_stop(self, *args, **kwargs):
    if next(calls) == 4:
        os.kill(os.getpid(), {signal})
    return search(self, *args, **kwargs)

BestOfN.__call__ = search_or_stop
main()
"""


def hear_ctrl_c() -> None:
    """Also where the tests themselves run in the background of a script, which is deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize(
    ("stop", "status"),
    [
        pytest.param(signal.SIGINT, 130, id="ctrl-c", marks=pytest.mark.slow),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, id="kill-9", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_was_stopped_goes_on_and_ends_the_same(
    generate: CommandLine, prompts_file: Path, whole_run: Path, tmp_path: Path, stop: signal.Signals, status: int
) -> None:
    out = tmp_path / "out"
    arguments = ["generate", "--prompts", str(prompts_file), "--out", str(out), *N]
    command = [sys.executable, "-c", STOPPED_RUN.format(signal=int(stop)), *arguments, *generate.options]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c)
    said, errors = run.communicate(timeout=600)
    made = written_at(out)
    done = len(images(out))
    assert (run.returncode, said) == (status, ""), errors
    assert done == 3
    if stop == signal.SIGINT:
        assert errors.splitlines()[-1] == "error: interrupted: 9 images are left, the same command generates them"

    outcome = generate(*arguments)
    assert outcome.status == 0
    assert f"{len(PROMPTS) - done} were generated now" in outcome.out
    kept = {name for name in images(out) if name in made}
    assert len(kept) == done
    assert {name: written_at(out)[name] for name in kept} == {name: made[name] for name in kept}, "made again"
    assert images(out) == images(whole_run)
    assert judged(out) == judged(whole_run)


def test_an_interrupted_run_keeps_its_images_and_says_how_many_are_left(
    generate: CommandLine, prompts_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, calls = BestOfN.__call__, itertools.count(1)

    def search_or_stop(self: BestOfN, *args: Any, **kwargs: Any) -> Result:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return search(self, *args, **kwargs)

    monkeypatch.setattr(BestOfN, "__call__", search_or_stop)
    outcome = generate("generate", "--prompts", prompts_file, "--out", "out", *N)
    assert (outcome.status, outcome.out) == (130, "")
    assert outcome.err.splitlines()[-1] == "error: interrupted: 9 images are left, the same command generates them"
    assert len(images(Path("out"))) == 3


def test_what_is_complete_is_not_made_again(
    generate: CommandLine, prompts_file: Path, whole_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forejudge.cli.generate.load_models", None)
    before = written_at(whole_run)
    outcome = generate("generate", "--prompts", prompts_file, "--out", whole_run, *N)
    assert outcome.status == 0
    assert "12 images of 12 prompts" in outcome.out
    assert "0 were generated now" in outcome.out
    assert written_at(whole_run) == before


def test_a_picture_without_its_record_is_made_again(generate: CommandLine, whole_run: Path, tmp_path: Path) -> None:
    Path("two.txt").write_text("\n".join(PROMPTS[:2]))
    generate("generate", "--prompts", "two.txt", "--out", tmp_path / "out", *N)
    (tmp_path / "out/00000/results/0000.json").unlink()
    (tmp_path / "out/00001/samples/0000.png").unlink()
    outcome = generate("generate", "--prompts", "two.txt", "--out", tmp_path / "out", *N)
    assert "2 were generated now" in outcome.out
    assert images(tmp_path / "out").items() <= images(whole_run).items()


def test_other_settings_are_refused(generate: CommandLine, prompts_file: Path, whole_run: Path) -> None:
    line = refusal(generate("generate", "--prompts", prompts_file, "--out", whole_run, "--n", "2"), 2)
    assert "was begun with n = 4, this run has n = 2" in line


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
    assert sorted(images(Path("forejudge-out"))) == [
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
    image = (whole_run / "00000/samples/0000.png").stat().st_size
    assert record < image
    with largest_file(image - 1):
        line = refusal(generate(*arguments), 1)
    assert "samples/0000.png cannot be written (File too large)" in line
    assert list((tmp_path / "out/00000/samples").iterdir()) == []
    assert generate(*arguments).status == 0
    assert images(tmp_path / "out").items() <= images(whole_run).items()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file may grow larger: the nearest thing to a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


PROMPT = "a photo of a red circle left of a blue square"


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def record_in(folder: Path) -> SearchRecord:
    return SearchRecord.model_validate_json((folder / "result.json").read_text())


def picture_in(folder: Path) -> Image.Image:
    with Image.open(folder / "best.png") as image:
        return image.copy()


def test_table_and_files(generate: CommandLine) -> None:
    outcome = generate("generate", PROMPT, "--n", "4")
    assert (outcome.status, outcome.err) == (0, "")
    out = Path("forejudge-out")
    assert names(out) == ["best.png", "result.json"]
    assert picture_in(out).size == (64, 64)
    record = record_in(out)
    assert (record.prompt, record.n, record.stopped_by) == (PROMPT, 4, "n")
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
    Path("doubtful/checksums.json").unlink()
    outcome = forejudge(
        "generate", PROMPT, "--until", "0.9", "--max-n", "2", "--generator", tiny_generator, "--verifier", "doubtful"
    )
    assert outcome.status == 0
    assert "No candidate passed" in outcome.out
    assert "Stopped at --max-n after 2 candidates" in outcome.out
    assert Path("forejudge-out/best.png").is_file()


def test_warnings_are_shown_beside_the_json(forejudge: CommandLine, tiny_verifier: Path, tmp_path: Path) -> None:
    retrained = save_tiny_generator(tmp_path / "retrained", seed=5)
    outcome = forejudge("generate", PROMPT, "--n", "1", "--json", "--generator", retrained, "--verifier", tiny_verifier)
    (warning,) = json.loads(outcome.out)["settings"]["warnings"]
    assert outcome.err == f"warning: {warning}\n"


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        (("--until", "0.000001"), "Stopped at candidate 0, the first to reach --until"),
        (("--budget-ms", "60000", "--max-n", "3"), "Stopped at --max-n after 3 candidates"),
    ],
)
def test_the_limit_that_ended_the_search_is_named(generate: CommandLine, limit: tuple[str, ...], said: str) -> None:
    assert said in generate("generate", PROMPT, *limit).out


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one the default dtype is another."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def run_settings(**options: Any) -> SearchConfig:
    """Return the settings of a run with some options; each belongs to one of the option models."""
    images_per_prompt = options.pop("images_per_prompt", 1)
    given: dict[type[BaseModel], dict[str, Any]] = {ModelOptions: {}, SamplingParams: {}, SearchOptions: {}}
    for name, value in options.items():
        next(fields for model, fields in given.items() if name in model.model_fields)[name] = value
    search = SearchOptions(**given[SearchOptions], sampling=SamplingParams(**given[SamplingParams]))
    return SearchConfig.from_options(ModelOptions(**given[ModelOptions]), search, images_per_prompt)


def test_defaults_are_filled_in() -> None:
    settings = run_settings()
    assert (settings.generator, settings.verifier, settings.dtype) == ("miniature", "miniature", "float32")
    assert (settings.n, settings.seed, settings.sampling.steps) == (8, 0, 1)


def test_a_generator_s_own_way_of_drawing_is_filled_in(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = GeneratorSpec(name="few-step", pipeline="owner/few-step", sampling=SamplingParams(steps=4), description="")
    monkeypatch.setitem(KNOWN_MODELS, "few-step", spec)
    for name in ("few-step", "owner/few-step@v1"):
        assert run_settings(generator=name).sampling == SamplingParams(steps=4)
        assert run_settings(generator=name, steps=2).sampling == SamplingParams(steps=2)


@pytest.mark.parametrize(
    "same",
    [
        {"n": 8, "seed": 0, "verifier": "miniature"},
        {"device": "cpu", "batch_size": 2},
    ],
)
def test_the_same_in_other_words_is_let_through(tmp_path: Path, same: dict[str, Any]) -> None:
    SearchStore(tmp_path, [], 1).begin(run_settings())
    SearchStore(tmp_path, [], 1).refuse_other(run_settings(**same))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"n": 4}, "n = 8, this run has n = 4"),
        ({"seed": 1}, "seed = 0, this run has seed = 1"),
        ({"seeds": (1, 2)}, "n = 8, this run has n = 2"),
        ({"until": 0.9}, "n = 8, this run has n = None"),
        ({"images_per_prompt": 2}, "images_per_prompt = 1, this run has images_per_prompt = 2"),
        ({"dtype": "bfloat16"}, "dtype = float32, this run has dtype = bfloat16"),
        ({"steps": 2}, "sampling = steps=1 .*, this run has sampling = steps=2"),
    ],
)
def test_other_settings_are_refused_with_both_values(tmp_path: Path, other: dict[str, Any], said: str) -> None:
    SearchStore(tmp_path, [], 1).begin(run_settings())
    with pytest.raises(InvalidRequest, match=f"was begun with {said}"):
        SearchStore(tmp_path, [], 1).refuse_other(run_settings(**other))


def test_models_are_compared_by_their_digests_once_they_are_loaded(tmp_path: Path) -> None:
    begun = run_settings().model_copy(update={"generator_digest": "a", "verifier_digest": "b"})
    SearchStore(tmp_path, [], 1).begin(begun)
    elsewhere = begun.model_copy(update={"generator": "copy", "verifier": "copy"})
    SearchStore(tmp_path, [], 1).refuse_other(elsewhere)
    SearchStore(tmp_path, [], 1).refuse_other(run_settings())
    for part in ("generator_digest", "verifier_digest"):
        with pytest.raises(InvalidRequest, match=f"{part} = .*, this run has {part} = c"):
            SearchStore(tmp_path, [], 1).refuse_other(elsewhere.model_copy(update={part: "c"}))


def test_every_search_option_belongs_to_the_settings_of_a_run() -> None:
    assert SearchConfig.model_fields.keys() > SearchOptions.model_fields.keys()


def test_a_folder_is_the_same_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run_settings(generator="model") == run_settings(generator=str(tmp_path / "model"))


def test_sampling_is_named_in_full() -> None:
    assert run_settings(steps=1, lora_scale=1.0) == run_settings()


LONG_PROMPT = "a red circle " * 110


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no prompt"),
        (["x", "--n", "0"], "n = 0"),
        (["x", "--n", "-2"], "n = -2"),
        (["x", "--max-n", "0"], "max_n = 0"),
        (["x", "--budget-ms", "-5"], "budget_ms = -5"),
        (["x", "--budget-ms", "nan"], "budget_ms = nan"),
        (["x", "--until", "1.5"], "until = 1.5"),
        (["x", "--steps", "0"], "steps = 0"),
        (["x", "--guidance-scale", "-1"], "guidance_scale = -1"),
        (["x", "--top-k", "0"], "top_k = 0"),
        (["x", "--batch-size", "0"], "batch_size = 0"),
        (["x", "--seeds", "1,-2"], "seeds.1 = -2: Input should be greater than or equal to 0"),
        (["x", "--seeds", "1,2", "--n", "3"], "n = 3 contradicts the 2 seeds"),
        (["x", "--dtype", "float3"], "dtype = 'float3': Input should be 'auto', 'float32'"),
        (["x", "--steps", "65"], "steps = 65: Input should be less than or equal to 64"),
        (["x", "--images-per-prompt", "0"], "images-per-prompt = 0"),
        (["x", "--seeds", "1,two"], "seeds.1 = 'two': expected a whole number"),
        (["x", "--seeds", ""], "--seeds is empty"),
        (["x", "--seeds", "1,2", "--seed", "3"], "seed = 3 would change nothing"),
        (["x", "--seeds", "1,2", "--images-per-prompt", "2"], "seeds name the candidates of one image"),
        (["x", "--all", "--top-k", "2"], "all finishes every candidate"),
        ([" \t"], "the prompt is empty"),
        (["x", "--prompts", "file.txt"], "prompt cannot go with --prompts"),
        (["--prompts", "file.txt", "--all"], "all cannot go with --prompts"),
        (["--prompts", "file.txt", "--top-k", "2"], "top-k cannot go with --prompts"),
    ],
)
def test_contradictions_are_refused_before_models_are_loaded(
    forejudge: CommandLine, arguments: list[str], said: str
) -> None:
    refused = forejudge("generate", *arguments, "--generator", "not looked for", "--verifier", "not looked for")
    assert said in refusal(refused, 2)
    assert not Path("forejudge-out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "an argument is empty"),
        (["  "], "the prompt is empty"),
        (["x", "--budget-ms", "0.001"], "budget_ms = 0.001 is too small: on this device one candidate"),
        (["x", "--device", "abacus"], "device 'abacus'"),
    ],
)
def test_what_the_models_cannot_serve_is_refused(generate: CommandLine, arguments: list[str], said: str) -> None:
    assert said in refusal(generate("generate", *arguments), 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([LONG_PROMPT], "would be cut: ' a red circle"),
        (["x", "--height", "50"], "64 x 50 pixels"),
        (["--prompts", "long.txt"], "long.txt, line 2: the prompt has"),
    ],
)
def test_what_the_generator_cannot_serve_is_refused_before_weights_are_read(
    forejudge: CommandLine, tiny_generator: Path, tiny_verifier: Path, arguments: list[str], said: str
) -> None:
    shutil.copytree(tiny_generator, "generator", ignore=shutil.ignore_patterns("*.safetensors"))
    Path("long.txt").write_text(f"a star\n{LONG_PROMPT}\n")
    refused = forejudge("generate", *arguments, "--generator", "generator", "--verifier", tiny_verifier)
    assert said in refusal(refused, 2)


def test_unknown_models_are_refused(generate: CommandLine, tiny_verifier: Path) -> None:
    unknown = CommandLine(generate.capture)
    assert "'nonesuch'" in refusal(unknown("generate", "x", "--generator", "nonesuch"), 2)
    arguments = ("--generator", "nonesuch", "--verifier", tiny_verifier)
    assert "unknown generator 'nonesuch'" in refusal(unknown("generate", "x", *arguments), 2)
    assert "unknown verifier 'nonesuch'" in refusal(generate("generate", "x", "--verifier", "nonesuch"), 2)


@pytest.mark.parametrize("change", ["missing", "truncated"])
@pytest.mark.parametrize(
    "file",
    [
        "generator/model_index.json",
        "generator/transformer/diffusion_pytorch_model.safetensors",
        "generator/text_encoder/model.safetensors",
        "generator/vae/diffusion_pytorch_model.safetensors",
        "verifier/verifier.json",
        "verifier/connector.safetensors",
        "verifier/language_model/model.safetensors",
    ],
)
def test_broken_folder_is_named(
    forejudge: CommandLine, tiny_generator: Path, tiny_verifier: Path, file: str, change: str
) -> None:
    shutil.copytree(tiny_generator, "generator")
    shutil.copytree(tiny_verifier, "verifier")
    if change == "missing":
        Path(file).unlink()
    else:
        Path(file).write_bytes(Path(file).read_bytes()[: Path(file).stat().st_size // 2])
    line = refusal(forejudge("generate", "x", "--generator", "generator", "--verifier", "verifier"), 1)
    assert str(Path(file).parent) in line


def test_verifier_of_another_generator_is_refused(generate: CommandLine, tiny_verifier: Path, tmp_path: Path) -> None:
    other = save_tiny_generator(tmp_path / "other", seed=0, blocks=3)
    command = CommandLine(generate.capture, ("--generator", str(other), "--verifier", str(tiny_verifier)))
    line = refusal(command("generate", "x"), 1)
    assert "num_blocks = 4" in line
    assert "num_blocks = 3" in line


def test_verifier_of_an_impossible_cut_is_refused(
    forejudge: CommandLine, tiny_generator: Path, tiny_verifier: Path
) -> None:
    shutil.copytree(tiny_verifier, "verifier")
    config = json.loads(Path("verifier/verifier.json").read_text())
    Path("verifier/verifier.json").write_text(json.dumps(config | {"reads": "hidden:9"}))
    line = refusal(forejudge("generate", "x", "--generator", tiny_generator, "--verifier", "verifier"), 1)
    assert "9 blocks" in line
    assert "only 4" in line


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_unwritable_output_is_refused_before_models_are_loaded(forejudge: CommandLine, out: str) -> None:
    Path("file").write_text("in the way")
    line = refusal(forejudge("generate", "x", "--out", out, "--generator", "not looked for"), 1)
    assert f"{out} cannot be written" in line
    assert Path("file").read_text() == "in the way"
