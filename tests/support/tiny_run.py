"""Fixtures of training tests: candidates of the tiny generator, and runs of a few steps on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from safetensors.torch import load_file

from forejudge.candidates.collect import CandidateCollector
from forejudge.candidates.observers import Observer
from forejudge.candidates.store import CandidateStore
from forejudge.generators import load_generator
from forejudge.generators.base import Generator
from forejudge.miniature.prompts import sample_prompt_lines
from forejudge.noise import Split
from forejudge.progress import ProgressCallback, Shard, ignore_progress
from forejudge.prompts.prompt_file import PromptLine
from forejudge.training.align import align
from forejudge.training.config import AlignRecipe, VerifyRecipe
from forejudge.training.dataset import TrainingData
from forejudge.training.presets import load_preset
from forejudge.training.verify import verify
from forejudge.verifiers.inputs import build_verifier_input
from research.miniature.language_model import language_model_tokenizer, new_language_model

CPU = torch.device("cpu")
CANDIDATES = 4
READABLE_CHANNEL = 62  # of hidden:2; its mean over the tokens varies among the candidates of a prompt
SHORT: dict[str, Any] = {
    "reads": "hidden:2",
    "steps": 10,
    "batch_size": 8,
    "eval_steps": 4,
    "warmup_steps": 2,
    "precision": "float32",
    "spatial_merge_size": 2,
}
NO_RANKING: dict[str, Any] = {"loss": {"kind": "class-weighted"}}


class ReadableLabels(Observer):
    """Labels and captions that follow from one channel of the hidden state: easy to learn."""

    name = "readable"

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image]) -> list[dict[str, Any]]:
        return [{"correct": False, "caption": "", "reason": "", "detections": "[]"} for _ in images]

    @staticmethod
    def write_into(folder: CandidateStore) -> None:
        """Overwrite the observer's labels by those of the recorded states."""
        states = load_file(folder.states_path(0))
        amount_N = states["hidden:2"].float()[:, :, READABLE_CHANNEL].mean(1)
        rows = folder.table().to_pylist()
        for row, is_right in zip(rows, (amount_N > amount_N.median()).tolist(), strict=True):
            row |= {"correct": is_right, "caption": "a red circle" if is_right else "two blue stars above a disc"}
        folder.write(0, rows, states)


def collect(folder: Path, generator: Generator, split: Split, prompts: int) -> Path:
    """Collect one block of candidates with labels, captions and `hidden:2`."""
    lines, verifier_inputs = sample_prompt_lines(prompts, split, 0), [build_verifier_input("hidden:2")]
    rows = CandidateStore(folder)
    collector = CandidateCollector(generator, lines, CANDIDATES, 0, ReadableLabels(), verifier_inputs, split)
    collector.run(rows, Shard(), ignore_progress)
    ReadableLabels.write_into(rows)
    return folder


def save_language_model(folder: Path, *, tied: bool = True, scale: float = 1.0) -> Path:
    """Save an untrained language model of one layer; a larger scale makes its input matter more."""
    torch.manual_seed(2)
    tokenizer = language_model_tokenizer()
    model = new_language_model(tokenizer, 32, 1)
    if not tied:
        config = model.config
        config.tie_word_embeddings = False
        model = type(model)(config)
    for weight in model.parameters():
        weight.data *= scale if weight.ndim == 2 else 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def relabeled(
    folder: Path, destination: Path, change: Callable[[dict[str, Any]], dict[str, Any]], dropped: Sequence[str] = ()
) -> Path:
    """Copy a folder with its rows changed one by one and some columns dropped."""
    rows = CandidateStore(folder)
    CandidateStore(destination).begin(rows.settings)
    changed = [row | change(row) for row in rows.table().drop_columns(list(dropped)).to_pylist()]
    CandidateStore(destination).write(0, changed, load_file(rows.states_path(0)))
    return destination


@dataclass(frozen=True)
class TinyRun:
    """A folder with generator, language_model, training and validation, and runs on them."""

    folder: Path

    @property
    def generator(self) -> Generator:
        return load_generator(str(self.folder / "generator"), CPU, torch.float32)

    @property
    def language_model(self) -> str:
        return str(self.folder / "language_model")

    @property
    def training(self) -> Path:
        return self.folder / "training"

    @property
    def validation(self) -> Path:
        return self.folder / "validation"

    @property
    def data(self) -> TrainingData:
        """Rows of both folders."""
        return TrainingData.of(self.training, self.validation, self.generator)

    def verify_recipe(self, **changes: Any) -> VerifyRecipe:
        """Ten steps, evaluated after 4, 8 and 10; weights stored in float32."""
        fields = (
            load_preset("miniature").verify.model_dump() | SHORT | NO_RANKING | {"language_model": self.language_model}
        )
        return VerifyRecipe.model_validate(fields | {"save_dtype": "float32"} | changes)

    def align_recipe(self, **changes: Any) -> AlignRecipe:
        """Recipe of stage 1 with the same steps."""
        fields = load_preset("miniature").align.model_dump() | SHORT | {"language_model": self.language_model}
        return AlignRecipe.model_validate(fields | {"save_dtype": "float32"} | changes)

    def verify(
        self, out: Path, report: ProgressCallback = ignore_progress, aligned: Path | None = None, **changes: Any
    ) -> Path:
        """Run stage 2 and return its folder."""
        recipe = self.verify_recipe(**changes)
        verify(recipe, self.generator, self.data, out, report, aligned)
        return out

    def align(self, out: Path, report: ProgressCallback = ignore_progress, **changes: Any) -> Path:
        """Run stage 1 and return its folder."""
        align(self.align_recipe(**changes), self.generator, self.data, out, report)
        return out


def new_tiny_run(folder: Path, generator: Path) -> TinyRun:
    """Generate 120 training candidates and 64 of held-out prompts."""
    (folder / "generator").symlink_to(generator)
    save_language_model(folder / "language_model")
    run = TinyRun(folder)
    collect(run.training, run.generator, "training", prompts=30)
    collect(run.validation, run.generator, "validation", prompts=16)
    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Load all tensors of a verifier's folder by file and name."""
    files = sorted(folder.glob("*.safetensors")) + sorted(folder.glob("language_model/*.safetensors"))
    assert len(files) >= 2, files
    return {f"{file.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def assert_weights_equal(
    actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float = 0.0
) -> None:
    """Compare names exactly and values within the tolerance."""
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, atol=tolerance, rtol=0, msg=lambda text: f"{name}: {text}")  # noqa: B023
