"""`forejudge profile` and `--dry-run` for a generator of each architecture, counted on the calls that run."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL.Image import Image

from forejudge.candidates.collect import CandidateCollector
from forejudge.candidates.observers import Observer
from forejudge.candidates.store import CandidateStore
from forejudge.generators import KNOWN_MODELS, GeneratorSpec, load_generator
from forejudge.generators.base import SamplingParams
from forejudge.progress import Shard, ignore_progress
from forejudge.prompts.prompt_file import PromptLine
from tests.support.command import CommandLine, CommandResult
from tests.support.doubles import CPU
from tests.support.tiny import save_tiny_verifier
from tests.support.tiny_flux import new_flux, new_flux2, save_flux, save_flux2
from tests.support.tiny_pixart import save_tiny_pixart
from tests.support.tiny_run import save_language_model
from tests.support.tiny_sd3 import new_sd3, save_sd3

SAVE: dict[str, Callable[[Path], Path]] = {
    "flux": lambda folder: save_flux(folder, new_flux()),
    "flux2": lambda folder: save_flux2(folder, new_flux2()),
    "pixart": save_tiny_pixart,
    "sd3": lambda folder: save_sd3(folder, new_sd3()),
}
NAME = "tiny"
ONCE = ("--n", "1", "--rounds", "1", "--device", "cpu", "--out", "out")
PROMPTS = [
    {"tag": "colors", "include": [{"class": "circle", "count": 1, "color": c}], "prompt": f"a {c} circle"}
    for c in ("red", "blue")
]


class EveryOther(Observer):
    """Label every other image correct, and describe all alike."""

    name = "every other"

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[dict[str, Any]]:
        columns = {"reason": "", "detections": "[]", "caption": "a red circle"}
        return [columns | {"correct": index % 2 == 0} for index in range(len(images))]


IN_DEFAULT_TIER = ("pixart",)
PARAMS = [pytest.param(name, marks=() if name in IN_DEFAULT_TIER else pytest.mark.slow) for name in SAVE]


@pytest.fixture(params=PARAMS)
def generator(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a pipeline, known as NAME; at its own size it would take minutes."""
    folder = SAVE[request.param](tmp_path / "generator")
    small = SamplingParams(height=32, width=32)
    monkeypatch.setitem(
        KNOWN_MODELS, NAME, GeneratorSpec(name=NAME, pipeline=str(folder), sampling=small, description="tiny")
    )
    return folder


def test_a_profile_measures_every_stage(forejudge: CommandLine, generator: Path, tmp_path: Path) -> None:
    verifier = save_tiny_verifier(tmp_path / "verifier", generator, num_prefix_blocks=2)
    done = forejudge("profile", "--generator", NAME, "--verifier", verifier, "--strategy", "forejudge", *ONCE)
    assert done.status == 0, done
    profile = json.loads(Path("out/profile.json").read_text())
    assert list(profile["stages"]) == ["encode", "prefix", "suffix", "decode", "language model, hidden"]
    for name, stage in profile["stages"].items():
        assert stage["flops"] > 0, name
        assert stage["weight_bytes"] > 0, name
    assert [strategy["strategy"] for strategy in profile["strategies"]] == ["forejudge"]
    assert (profile["settings"]["height"], profile["settings"]["num_prefix_blocks"]) == (32, 2)


@pytest.mark.slow
@pytest.mark.parametrize("generator", ["pixart"], indirect=True)
def test_a_generator_without_a_verifier_has_its_stages_profiled(forejudge: CommandLine, generator: Path) -> None:
    done = forejudge("profile", "--generator", NAME, *ONCE)
    assert done.status == 0, done
    profile = json.loads(Path("out/profile.json").read_text())
    assert list(profile["stages"]) == ["encode", "prefix", "suffix", "decode"]
    assert profile["strategies"] == []


def test_a_dry_run_estimates_every_command(forejudge: CommandLine, generator: Path, tmp_path: Path) -> None:
    Path("prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
    options = ("--generator", NAME, "--device", "cpu", "--dry-run", "--out", "out")
    label = ("--evaluator", "geneval-miniature", "--prompts", "prompts.jsonl", "--candidates", "3")
    assert_estimated(forejudge("label", *options, *label))
    language_model = save_language_model(tmp_path / "language_model")
    training, validation = (collect(tmp_path / name, name) for name in ("training", "validation"))
    fields = (f"language_model={language_model}", "batch_size=4", "steps=2", "spatial_merge_size=2")
    changes = [option for field in fields for option in ("--set", field)]
    train: list[str | Path] = ["--validation", validation, "--reads", "hidden:2", *changes]
    assert_estimated(forejudge("train", "align", "--captions", training, *train, *options))
    assert_estimated(forejudge("train", "verify", "--labels", training, *train, *options))


def collect(folder: Path, name: str) -> Path:
    """Collect candidates of two prompts in the generator's own format."""
    lines = [PromptLine(f"{prompt['prompt']} {name}", json.dumps(prompt | {"split": name}), name) for prompt in PROMPTS]
    loaded = load_generator(NAME, CPU, torch.float32)
    CandidateCollector(loaded, lines, 4, 0, EveryOther()).run(CandidateStore(folder), Shard(), ignore_progress)
    return folder


def assert_estimated(outcome: CommandResult) -> None:
    """Check that there is work to do, and that all of it is positive."""
    assert outcome.status == 0, outcome
    lines = dict(line.split(": ", 1) for line in outcome.out.splitlines() if ": " in line)
    assert float(lines["operations"].removesuffix(" FLOP")) > 0
    assert lines["time on cpu"].startswith("about ")
    assert "-" not in lines["time on cpu"]
    assert not Path("out").exists()
