"""The command line run in this process, and results made without a model."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from forejudge.cli.app import main
from forejudge.generators.base import SamplingParams
from forejudge.result import CandidateRecord, Result, SearchRecord, Settings


@dataclass(frozen=True)
class CommandResult:
    """Status and output of a command."""

    status: int
    out: str
    err: str


@dataclass(frozen=True)
class CommandLine:
    """`forejudge`, with options that every call gets, before others of the same name."""

    capture: pytest.CaptureFixture[str]
    options: tuple[str, ...] = ()

    def __call__(self, *arguments: str | Path) -> CommandResult:
        self.capture.readouterr()
        with pytest.raises(SystemExit) as exit_info:
            main([*map(str, arguments[:1]), *self.options, *map(str, arguments[1:])])
        captured = self.capture.readouterr()
        assert isinstance(exit_info.value.code, int)
        return CommandResult(exit_info.value.code, captured.out, captured.err)


def refusal(outcome: CommandResult, status: int) -> str:
    """Return the one line, all of its output, with which a command refused."""
    assert outcome.status == status, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert outcome.err.count("\n") == 1, outcome.err
    return outcome.err


def fake_result(probabilities: list[float | None], with_images: list[int], size: tuple[int, int] = (64, 64)) -> Result:
    """Return a result with these probabilities; `with_images` candidates have images in shades of gray, best first."""
    candidates = tuple(
        CandidateRecord(
            index=index,
            seed=1000 + index,
            score=-1.0 if probability is None else probability,
            log_odds=None if probability is None else 0.5,
            p_yes=None if probability is None else 0.25,
            p_no=None if probability is None else 0.125,
            probability=probability,
            stage="image" if index in with_images else "prefix(2 blocks, step 0)",
        )
        for index, probability in enumerate(probabilities)
    )
    best = probabilities[with_images[0]]
    record = SearchRecord(
        prompt="a photo of a red circle",
        candidates=candidates,
        winner=with_images[0],
        passed=None if best is None else best >= 0.5,
        stopped_by="n",
        n=len(candidates),
        unused=0,
        timings={"encode": 0.001, "decode": 0.0025, "total": 0.25},
        settings=_SETTINGS,
        versions={},
    )
    return Result(record, {index: Image.new("RGB", size, (10 * index,) * 3) for index in with_images})


_SETTINGS = Settings(
    generator="tiny",
    verifier="tiny",
    seed=0,
    image_index=0,
    sampling=SamplingParams(),
    generator_options={},
    device="cpu",
    dtype="float32",
    batch_size=None,
    warnings=(),
)
