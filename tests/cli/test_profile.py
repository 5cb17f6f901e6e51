"""`forejudge profile`: options, files, and what is refused."""

import json
from pathlib import Path

import pytest

from forejudge.profiling.figures import DeviceRates
from forejudge.profiling.sizes import RANDOM_MODELS
from tests.support.command import CommandLine, refusal
from tests.support.tiny_sizes import TINY


@pytest.mark.slow
def test_models_of_random_weights_are_profiled_and_plotted(
    forejudge: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RANDOM_MODELS, "tiny", TINY)
    rates = DeviceRates(flops_per_second=1e9, bytes_per_second=1e9)  # bfloat16 is slow to measure on many CPUs
    monkeypatch.setattr("forejudge.profiling.profile.device_rates", lambda device, dtype: rates)
    asked = ("--generator", "tiny", "--random-weights", "--n", "2,1", "--rounds", "1", "--resolution", "96")
    done = forejudge("profile", *asked, "--device", "cpu", "--dtype", "bfloat16", "--out", "out")
    assert done.status == 0, done.err
    found = json.loads(Path("out/profile.json").read_text())
    assert (found["settings"]["ns"], found["settings"]["height"], found["settings"]["dtype"]) == (
        [1, 2],
        96,
        "bfloat16",
    )
    assert "CPU" in found["settings"]["device_note"]
    assert done.out.startswith("Figures measured on a CPU, not comparable to a GPU")
    for said in ("language model, hidden", "decode-all, clip", "VHS (paper)", "63.3", "written to out/profile.json"):
        assert said in done.out
    assert Path("out/profile.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--strategy", "fastest"), "unknown strategy 'fastest': expected official, decode-all, forejudge"),
        (("--n", "0"), "--n '0' is not a list of numbers from 1"),
        (("--random-weights", "--generator", "flux"), "no sizes are known for generator 'flux'"),
        (
            ("--random-weights", "--generator", "sana-sprint-small", "--verifier", "pixels"),
            "no verifier reads 'pixels'",
        ),
        (("--strategy", "decode-all"), "strategy decode-all needs a verifier that reads clip"),
        (("--resolution", "100"), "an image of 100 x 100 pixels cannot be generated"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(forejudge: CommandLine, asked: tuple[str, ...], said: str) -> None:
    assert said in refusal(forejudge("profile", *asked, "--device", "cpu", "--out", "out"), 2)
