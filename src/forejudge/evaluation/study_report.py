"""The report of a study: verifiers that differ in one choice, trained alike and tested on the same candidates."""

from collections.abc import Callable
from pathlib import Path

from pydantic import PositiveInt

from forejudge.config_files import read_config
from forejudge.evaluation.bootstrap import Interval, Share
from forejudge.evaluation.report import FrozenModel, Ratio, UndefinedShare
from forejudge.files import write_text

_HIDDEN = "hidden:"


class VariantReport(FrozenModel):
    """Figures of one variant: means over its training seeds, with 95 % intervals over prompts.

    `reads` is what its verifier reads, such as hidden:12. `best_of_n` and `oracle` are accuracies at the study's N,
    `best_of_1` is that of the first candidate. None stands for a figure the study didn't record.
    """

    reads: str
    language_model_parameters: PositiveInt | None = None
    generator_fingerprint: str | None = None
    best_of_1: Share | None = None
    oracle: Share | None = None
    best_of_n: Share
    oracle_gap_closed: Ratio
    oracle_gap_closed_per_seed: list[float]
    pair_accuracy: Ratio
    auroc: UndefinedShare
    expected_calibration_error: UndefinedShare | None = None

    @property
    def num_prefix_blocks(self) -> int | None:
        """Blocks before the hidden state that the verifier reads; None where it reads something else."""
        blocks = self.reads.removeprefix(_HIDDEN)
        return int(blocks) if blocks.isdecimal() else None


class StudyReport(FrozenModel):
    """All figures of one study, by variant. `steps` is the length of each training."""

    provenance: dict[str, str]
    n: PositiveInt
    steps: PositiveInt
    training_seeds: PositiveInt
    test_cases: PositiveInt
    test_seeds: PositiveInt
    generator_fingerprint: str
    variants: dict[str, VariantReport]

    @classmethod
    def read(cls, path: Path) -> "StudyReport":
        """Read a report. Raises CheckpointError naming the file and the field."""
        return read_config(path, cls)

    def write(self, path: Path) -> None:
        """Write the report as JSON. Raises OutputError."""
        write_text(path, self.model_dump_json(indent=1, exclude_none=True) + "\n")

    def varies(self, figure: Callable[[VariantReport], object]) -> bool:
        """Say whether the variants have more than one value of a figure."""
        first, *others = map(figure, self.variants.values())
        return any(other != first for other in others)

    def by_blocks(self) -> list[tuple[int, Interval]]:
        """Best-of-N of the variants that read a hidden state, by the number of blocks before it, rising."""
        variants = [(variant.num_prefix_blocks, variant.best_of_n) for variant in self.variants.values()]
        return sorted(((blocks, figure) for blocks, figure in variants if blocks is not None), key=lambda pair: pair[0])
