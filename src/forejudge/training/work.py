"""What long work amounts to before it is begun: operations, disk, and time on this device by a short measurement."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from forejudge.files import trial_folder
from forejudge.profiling.flops import count_flops
from forejudge.profiling.stage_timing import timed
from forejudge.progress import report_nothing
from forejudge.shard import Shard
from forejudge.training.drawing import RECORDED, CandidateDrawing
from forejudge.training.row_folder import RowFolder

_ENCODINGS = 2  # of each prompt: to find one that is refused, and to draw


@dataclass(frozen=True)
class Work:
    """`amount` is what there is to do, `stored` bytes by what they hold, `measured` where `seconds` come from."""

    amount: str
    flops: int
    stored: Mapping[str, int]
    seconds: float
    measured: str


def drawing_work(drawing: CandidateDrawing, folder: RowFolder, shard: Shard) -> Work:
    """What a shard still has to do, by one prompt drawn and observed beside the folder, which stays as it is.

    Operations are those of one candidate, whoever observes it included; the time is that of a batch. Raises as
    `CandidateDrawing.run` does before it begins, but only for the first prompt, and whatever the observer raises.
    """
    rows, candidates = drawing.rows_left(folder, shard), drawing.candidates
    stored = drawing.bytes_of(rows)
    device, batch = drawing.generator.device, min(candidates, drawing.batch_size)
    encode = partial(drawing.generator.encode_without_padding, drawing.lines[0].prompt, drawing.generator.defaults)
    encode()  # an instruction is read but once
    encode_flops = count_flops(encode)
    with trial_folder(folder.folder) as place:
        flops = count_flops(_trial(drawing, 1, place / "counted"))  # and everything is warm
        seconds = timed(_trial(drawing, batch, place / "timed"), device, rounds=1, warm_up=0).median / 1000
        rows_bytes = sum(path.stat().st_size for path in (place / "timed" / "rows").glob("*.parquet"))
    encode_seconds = timed(encode, device, rounds=1, warm_up=0).median / 1000
    prompts = -(-rows // candidates)
    return Work(
        amount=f"{rows} candidates of {prompts} prompts",
        flops=prompts * _ENCODINGS * encode_flops + rows * (flops - _ENCODINGS * encode_flops),
        stored={RECORDED: stored, "the rows": rows_bytes * rows // batch},
        seconds=prompts * _ENCODINGS * encode_seconds + rows * (seconds - _ENCODINGS * encode_seconds) / batch,
        measured=f"{batch} candidates drawn in {seconds:.2g} s",
    )


def _trial(drawing: CandidateDrawing, candidates: int, place: Path) -> partial[None]:
    """So many candidates of the first prompt; what a run measures for itself is measured already."""
    trial = replace(drawing, lines=drawing.lines[:1], candidates=candidates)
    _ = trial.recorded_bytes
    return partial(trial.run, RowFolder(place), Shard(), report_nothing)
