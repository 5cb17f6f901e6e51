"""What `forejudge label` and `forejudge caption` share: candidates drawn for somebody to look at, and kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from forejudge.cli.licences import tell_licences
from forejudge.cli.progress import waiting
from forejudge.errors import InvalidRequest
from forejudge.files import prepare_folder

if TYPE_CHECKING:
    from forejudge.evaluation.prompts_file import PromptLine
    from forejudge.generators.base import Generator as LoadedGenerator
    from forejudge.training.drawing import Observer
    from forejudge.training.row_folder import RowFolder
    from forejudge.verifiers.reading import Reading

Generator = Annotated[str, Option(help="A name that `forejudge models` lists, a folder or a hub id.")]
Prompts = Annotated[Path, Option(metavar="FILE", help="A text file with a prompt a line, or .jsonl with metadata.")]
Out = Annotated[Path, Option(metavar="DIR", help="The folder to write to. A run that was stopped goes on there.")]
CandidatesEach = Annotated[int, Option(help="Candidates of each prompt.")]
Seed = Annotated[int, Option(help="The run's seed, from which each candidate's follows.")]
ShardOf = Annotated[str, Option(metavar="I/N", help="The I-th of N parts, for processes that share DIR.")]
Record = Annotated[
    str | None,
    Option(metavar="LIST", help="States to keep, such as hidden:6,latent, or all for every block (default: none)."),
]
VisionTower = Annotated[str | None, Option(help="For --record clip, the CLIP to see with: a folder or a hub id.")]
BatchSize = Annotated[int, Option(help="Candidates of one prompt drawn at once.")]


@dataclass(frozen=True)
class DrawingOptions:
    """How much is drawn, which part of it by this process, and what is kept."""

    candidates: int
    seed: int
    shard: str
    record: str | None
    vision_tower: str | None
    batch_size: int

    def __post_init__(self) -> None:
        for name in ("candidates", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidRequest(f"{name.replace('_', '-')} = {getattr(self, name)}: it must be at least 1")
        from forejudge.shard import Shard
        from forejudge.verifiers.reading import reading_named

        Shard.parse(self.shard)
        for name in self._names:
            reading_named(name, self.vision_tower)

    @property
    def _names(self) -> list[str]:
        """What is to be recorded, but for "all", which only a generator can spell out."""
        return list(dict.fromkeys(self.record.split(","))) if self.record and self.record != "all" else []

    def readings(self, generator: "LoadedGenerator") -> "list[Reading]":
        """What is recorded. Raises InvalidRequest for a spelling that is none."""
        from forejudge.verifiers.reading import reading_named

        blocks = range(1, generator.architecture.num_blocks + 1) if self.record == "all" else ()
        names = [*self._names, *(f"hidden:{count}" for count in blocks)]
        return [reading_named(name, self.vision_tower) for name in names]


def load(name: str, device: str | None, dtype: str | None, out: Path) -> "LoadedGenerator":
    """The generator, once it is known that results can be written."""
    prepare_folder(out)
    with waiting("loading"):
        from forejudge.device import AUTO, resolve_device, resolve_dtype
        from forejudge.generators import load_generator

        where = resolve_device(device)
        loaded = load_generator(name, where, resolve_dtype(dtype or AUTO, where))
    tell_licences(loaded.sources)
    return loaded


def draw(
    generator: "LoadedGenerator", lines: "list[PromptLine]", observer: "Observer", options: DrawingOptions, out: Path
) -> "RowFolder | None":
    """Draw this process's part, with progress; the folder if it is complete then."""
    from forejudge.cli.stage_progress import StageProgress
    from forejudge.shard import Shard
    from forejudge.training.disk_space import in_words
    from forejudge.training.drawing import CandidateDrawing
    from forejudge.training.row_folder import RowFolder

    folder, shard, readings = RowFolder(out), Shard.parse(options.shard), options.readings(generator)
    drawing = CandidateDrawing(
        generator, lines, options.candidates, options.seed, observer, readings, options.batch_size
    )
    if readings:
        typer.echo(f"the states of all {drawing.settings.rows} rows take {in_words(drawing.recorded_bytes)}", err=True)
    try:
        with StageProgress() as progress:
            drawing.run(folder, shard, progress.show)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on with what is missing") from None
    if not (missing := len(folder.missing)):
        return folder
    blocks = folder.settings.blocks
    typer.echo(f"shard {shard} is done; of all {blocks} blocks {missing} are left to the other shards")
    return None
