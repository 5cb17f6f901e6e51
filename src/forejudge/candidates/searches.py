"""Best-of-N searches over many prompts: the winners in GenEval's folder layout, each with the record of its search.

    settings.json               the configuration that decides the images
    prompts.jsonl               the metadata lines of all prompts
    00000/metadata.jsonl        the prompt's line
    00000/samples/0000.png      the winner among the candidates of the first image
    00000/results/0000.json     the record of that search

An image is complete when both of its files are there; the image is written last.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from pydantic import model_validator

from forejudge.best_of_n import BestOfN
from forejudge.candidates.collect import Collector
from forejudge.candidates.geneval_folder import GenEvalFolder
from forejudge.candidates.store import BlockStore
from forejudge.config_files import read_config
from forejudge.device import dtype_name, resolve_device, resolve_dtype
from forejudge.files import is_dir, is_file, write_image, write_text
from forejudge.generators import find_spec
from forejudge.generators.base import Generator
from forejudge.options import ModelOptions, SamplingParams, SearchOptions
from forejudge.prompts.prompt_file import PromptLine, check_lines, image_indices
from forejudge.result import Result, SearchRecord


class SearchConfig(SearchOptions):
    """Configuration that decides the images of a run over many prompts; device and batch size may change between runs.

    It has every search option, so that none can change unnoticed. Defaults are filled in, so that an option that is
    spelled out equals one that is left out. The digests are None until the models are loaded.
    """

    model_names: ClassVar = {"generator", "verifier"}

    generator: str
    verifier: str
    generator_digest: str | None = None
    verifier_digest: str | None = None
    dtype: str
    verifier_step: int
    images_per_prompt: int
    sampling: SamplingParams

    @classmethod
    def from_options(cls, models: ModelOptions, search: SearchOptions, images_per_prompt: int) -> "SearchConfig":
        """Fill in the defaults of the library and of the generator. Folders are named by their absolute path."""
        spec = find_spec(models.generator)
        filled = {
            "n": search.fixed_n,
            "sampling": search.sampling_for(spec.sampling if spec else SamplingParams()),
        }
        return cls(
            **{**dict(search), **filled},
            generator=_absolute(models.generator),
            verifier=_absolute(models.verifier or models.generator),
            dtype=dtype_name(resolve_dtype(models.dtype, resolve_device(models.device))),
            verifier_step=models.verifier_step,
            images_per_prompt=images_per_prompt,
        )

    def identified(self, best: BestOfN) -> "SearchConfig":
        """Return a copy with the digests of the loaded models."""
        digests = {"generator_digest": best.generator.fingerprint, "verifier_digest": best.verifier.digest}
        return self.model_copy(update=digests)

    def names_models_of(self, other: "SearchConfig") -> bool:
        """Return whether both name the same models; others may still be equal, by their digests."""
        return (self.generator, self.verifier) == (other.generator, other.verifier)

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        return self  # the search options were checked before; all of them are spelled out here


def _absolute(model: str) -> str:
    return str(Path(model).resolve()) if is_dir(model) else model


class SearchStore(BlockStore[SearchConfig]):
    """Winners of searches in GenEval's layout; each image of each line is a block. More lines may be added later.

    A repeated prompt stands for its next images, as in every collection.
    """

    config_class = SearchConfig
    block_name = "images"
    may_grow = True

    def __init__(self, path: Path, lines: Sequence[PromptLine], images_per_prompt: int) -> None:
        super().__init__(path)
        self.lines, self.images_per_prompt = lines, images_per_prompt
        self._repeats = image_indices(lines)

    @property
    def blocks(self) -> int:
        """See `BlockStore.blocks`."""
        return len(self.lines) * self.images_per_prompt

    def line(self, block: int) -> PromptLine:
        """Return the prompt line of an image."""
        return self.lines[block // self.images_per_prompt]

    def image_index(self, block: int) -> int:
        """Return the index of an image among all those of its prompt, which enters its seeds."""
        return self._repeats[block // self.images_per_prompt] * self.images_per_prompt + self._sample(block)

    def image_path(self, block: int) -> Path:
        """Return the file of an image."""
        return self._folder(block).sample_path(self._sample(block))

    def record_path(self, block: int) -> Path:
        """Return the file of an image's search record."""
        return self._folder(block).path / "results" / f"{self._sample(block):04}.json"

    def _sample(self, block: int) -> int:
        return block % self.images_per_prompt

    def has(self, block: int) -> bool:
        """See `BlockStore.has`."""
        return is_file(self.image_path(block)) and is_file(self.record_path(block))

    def check_prompts(self, lines: Sequence[PromptLine]) -> None:
        """See `BlockStore.check_prompts`: those recorded, and those of the folders that are there."""
        super().check_prompts(lines)
        for block in range(0, self.blocks, self.images_per_prompt):
            self._folder(block).check(self.line(block))

    def record(self, block: int) -> SearchRecord:
        """Read an image's search record. Raises CheckpointError for a damaged one."""
        path = self.record_path(block)
        return read_config(path, SearchRecord, f"delete {path} and run the command again, it makes this image again")

    def write(self, block: int, result: Result) -> None:
        """Write an image with its record. Raises OutputError."""
        folder = self._folder(block)
        if not is_file(folder.metadata_path):
            write_text(folder.metadata_path, self.line(block).metadata + "\n")
        write_text(self.record_path(block), result.record.model_dump_json(indent=2) + "\n")
        write_image(self.image_path(block), result.image)

    def _folder(self, block: int) -> GenEvalFolder:
        return GenEvalFolder.of_prompt(self.path, block // self.images_per_prompt)


def check_search(generator: Generator, lines: Iterable[PromptLine], search: SearchOptions) -> None:
    """Raise InvalidRequest, naming its line, for the first prompt that a search cannot serve."""
    sampling = search.sampling_for(generator.defaults)
    check_lines(lines, lambda prompt: generator.check(prompt, sampling))


@dataclass(frozen=True)
class SearchCollector(Collector[SearchStore]):
    """One search for each image of each prompt line. `config` follows from the options that `best` was loaded with.

    Its digests keep a folder to one generator and one verifier.
    """

    best: BestOfN
    search: SearchOptions
    config: SearchConfig
    lines: Sequence[PromptLine]

    @property
    def settings(self) -> SearchConfig:
        """See `Collector.settings`."""
        return self.config

    @property
    def prompt_lines(self) -> Sequence[PromptLine]:
        """See `Collector.prompt_lines`."""
        return self.lines

    @property
    def blocks(self) -> int:
        """See `Collector.blocks`."""
        return len(self.lines) * self.config.images_per_prompt

    def check(self, blocks: Sequence[int], store: SearchStore) -> None:
        """See `Collector.check`: prompts."""
        check_search(self.best.generator, map(store.line, blocks), self.search)

    def collect(self, block: int, store: SearchStore) -> None:
        """See `Collector.collect`."""
        options = self.search.model_copy(update={"image_index": store.image_index(block)})
        store.write(block, self.best(store.line(block).prompt, options=options))
