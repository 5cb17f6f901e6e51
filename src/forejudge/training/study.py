"""Studies: verifiers that differ in one choice, trained alike and compared on candidates of held-out prompts.

Every variant trains from the same recorded rows with the same seeds. The last checkpoint is taken, not the best one:
the held-out rows are the test set. Runs and scores stay in the study's folder, so a stopped study continues.

Shapes: M held-out rows, C cases (a prompt and one of its images), N candidates per case.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from safetensors import safe_open

from forejudge.errors import InvalidRequest
from forejudge.evaluation.bootstrap import bootstrap_mean
from forejudge.evaluation.build_report import (
    best_of_n_outcome,
    oracle_gap_closed_interval,
    pair_accuracy_interval,
    ranking_metrics,
)
from forejudge.evaluation.metrics import FloatArray
from forejudge.evaluation.strategies import Outcomes, oracle_strategy, random_strategy
from forejudge.evaluation.study_report import StudyReport, VariantReport
from forejudge.files import exists, write_bytes
from forejudge.generators.base import Generator
from forejudge.hub import public_model_name
from forejudge.progress import Progress, ProgressCallback
from forejudge.result import provenance
from forejudge.training.align import align
from forejudge.training.config import AlignRecipe, VerifyRecipe, apply_changes, with_changes
from forejudge.training.dataset import LabeledRows, TrainingData
from forejudge.training.losses import VerifierLoss
from forejudge.training.model import log_odds
from forejudge.training.stage_models import trained_stage
from forejudge.training.verify import verify
from forejudge.verifiers import find_verifier_class
from forejudge.verifiers.inputs import find_input_class
from forejudge.verifiers.language_model import LANGUAGE_MODEL

CHOICES = ("layers", "loss", "pooling", "data", "llm", "captions")
MAX_N = 8  # the N of Best-of-N, where each prompt has that many candidates

Captions = Literal["new", "original"]
_FIELDS: dict[str, str] = {
    "layers": "reads",
    "loss": "loss.kind",
    "pooling": "spatial_merge_size",
    "data": "training_rows",
    "llm": "language_model",
}
_NO_ALIGNMENT = "none"
_SHARED_FIELDS = ("reads", "language_model", "vision_tower", "tiny_decoder", "spatial_merge_size")  # of both stages
_SCORES_FILE = "held_out_scores.npy"


@dataclass(frozen=True)
class Variant:
    """One way to train: changes to the recipe of stage 2, spelled as for --set.

    `captions` is the column that stage 1 learns to say (see `AlignRecipe`); None trains stage 2 alone.
    """

    changes: tuple[str, ...] = ()
    captions: Captions | None = "new"


@dataclass(frozen=True)
class StudyInputs:
    """Generator, rows and recipes that variants train from. `captions` is None for studies without stage 1.

    `folder` holds the runs. The inputs that a variant reads must be recorded in the rows.
    """

    generator: Generator
    align: AlignRecipe
    verify: VerifyRecipe
    labels: TrainingData
    captions: TrainingData | None
    folder: Path
    report: ProgressCallback

    def recipe(self, variant: Variant, seed: int) -> VerifyRecipe:
        """Return a variant's recipe for one training seed, evaluated after the last step alone."""
        recipe = apply_changes(self.verify, variant.changes)
        return with_changes(recipe, seed=seed, eval_steps=recipe.steps, early_stopping_patience=None)

    def train(self, variant: Variant, seed: int, out: Path, name: str) -> None:
        """Train one variant with one seed, stage 1 included. Raises the same errors as `align` and `verify`."""
        recipe, stages = self.recipe(variant, seed), replace(self, report=_named(self.report, name))
        check_recorded(self.labels, recipe.reads)
        aligned = None if variant.captions is None else stages._align(recipe, variant.captions)
        verify(recipe, self.generator, self.labels, out, stages.report, aligned)

    def scores(self, out: Path) -> FloatArray:
        """Return a trained verifier's score of each held-out row (M,), from the folder if it has them already."""
        path = out / _SCORES_FILE
        if not exists(path):
            verifier = find_verifier_class(out).from_pretrained(out, device=self.generator.device)
            stage, encode = trained_stage(verifier, self.generator)
            rows = LabeledRows.of(self.labels.held_out, self.generator, verifier.verifier_input, encode)
            data = BytesIO()
            logprobs = torch.from_numpy(rows.logprobs(stage, self.generator.device))
            np.save(data, log_odds(logprobs).double().numpy())
            write_bytes(path, data.getvalue())
        scores: FloatArray = np.load(path)
        return scores

    def _align(self, recipe: VerifyRecipe, captions: Captions) -> Path:
        """Run stage 1 for the input, pooling and language model of a recipe; all seeds share its result."""
        if self.captions is None:
            raise InvalidRequest("alignment needs captioned candidates: name a folder of `forejudge caption`")
        check_recorded(self.captions, recipe.reads)
        changes = {field: getattr(recipe, field) for field in _SHARED_FIELDS}
        size, model = recipe.spatial_merge_size, public_model_name(recipe.language_model)
        out = self.folder / "aligned" / folder_name(f"{recipe.reads} {size}x{size} {captions} {model}")
        align(with_changes(self.align, captions=captions, **changes), self.generator, self.captions, out, self.report)
        return out


@dataclass(frozen=True)
class Study:
    """Variants of one choice, each trained with `training_seeds` seeds from the same inputs."""

    choice: str
    variants: Mapping[str, Variant]
    inputs: StudyInputs
    training_seeds: int

    def run(self) -> StudyReport:
        """Train and score what is missing, and report how each variant ranks the held-out candidates."""
        scores = {}
        for name, seed in runs(self.variants, self.training_seeds):
            self.inputs.train(self.variants[name], seed, self._folder(name, seed), run_name(name, seed))
            scores[run_name(name, seed)] = self.inputs.scores(self._folder(name, seed))
        outcomes = held_out_outcomes(self.inputs.labels, scores)
        generator, num_candidates = self.inputs.generator, outcomes.candidates
        n = min(MAX_N, num_candidates)
        variants = {
            name: variant_report(
                outcomes,
                [run_name(name, seed) for seed in range(self.training_seeds)],
                n,
                self.inputs.recipe(variant, 0).reads,
                num_parameters(self._folder(name, 0) / LANGUAGE_MODEL),
                generator.fingerprint,
            )
            for name, variant in self.variants.items()
        }
        return StudyReport(
            provenance=provenance(generator.device),
            n=n,
            steps=self.inputs.verify.steps,
            training_seeds=self.training_seeds,
            test_cases=len(outcomes.prompts),
            test_seeds=1,
            generator_fingerprint=generator.fingerprint,
            variants=variants,
        )

    def _folder(self, name: str, seed: int) -> Path:
        return self.inputs.folder / self.choice / folder_name(run_name(name, seed))


def runs(variants: Mapping[str, Variant], training_seeds: int) -> Iterator[tuple[str, int]]:
    """Yield variant and seed, seed by seed: a study that is cut short has trained every variant."""
    return ((name, seed) for seed in range(training_seeds) for name in variants)


def run_name(variant: str, seed: int) -> str:
    """Name one training of a variant."""
    return f"{variant}, seed {seed}"


def folder_name(name: str) -> str:
    """Return a name as a folder's: letters, digits, dots and hyphens."""
    return re.sub(r"[^\w.]+", "-", name).strip("-")


def study_variants(
    choice: str, values: Sequence[str], recipe: VerifyRecipe, labels: TrainingData, generator: Generator, aligned: bool
) -> dict[str, Variant]:
    """Return the variants of a choice by name, from `values` or by default from what the rows and recipe allow.

    With `aligned` every variant goes through stage 1. Raises InvalidRequest for an unknown choice, fewer than two
    values, values that the recipe can't take, and inputs that aren't recorded.
    """
    if choice not in CHOICES:
        raise InvalidRequest(f"unknown study {choice!r}: expected one of {', '.join(CHOICES)}")
    if choice == "captions":
        variants = _caption_variants(values, aligned)
    else:
        named = {public_model_name(value): value for value in values or _default_values(choice, labels, generator)}
        captions: Captions | None = "new" if aligned else None
        variants = {name: Variant((f"{_FIELDS[choice]}={value}",), captions) for name, value in named.items()}
    if len(variants) < 2:
        raise InvalidRequest(
            f"study {choice} compares two or more variants, got {', '.join(variants) or 'none'}: name them with "
            "--values, such as A,B"
        )
    for variant in variants.values():
        check_recorded(labels, apply_changes(recipe, variant.changes).reads)
    return variants


def check_recorded(data: TrainingData, reads: str) -> None:
    """Raise InvalidRequest if rows lack the recorded states of a verifier input."""
    for rows in (data.training, data.held_out):
        recorded = rows.store.settings.recorded
        if not {reads, find_input_class(reads).derived_from} & set(recorded):
            raise InvalidRequest(
                f"{rows.store.path} has no recorded states of {reads}, only {', '.join(recorded) or 'none'}: "
                f"generate its candidates with --record {reads}"
            )


def held_out_outcomes(labels: TrainingData, scores: Mapping[str, FloatArray]) -> Outcomes:
    """Arrange labels and scores (M,) of the held-out rows by case: a prompt and one of its images."""
    rows, candidates = labels.held_out, labels.held_out.store.settings.candidates
    cases = rows.prompts[::candidates]
    return Outcomes(
        prompts=cases,
        tasks=[""] * len(cases),
        correct_CSN=rows.correct.reshape(len(cases), 1, candidates),
        score_CSN={name: score_M.reshape(len(cases), 1, candidates) for name, score_M in scores.items()},
        probability_CSN={},
    )


def variant_report(
    outcomes: Outcomes, verifiers: Sequence[str], n: int, reads: str, language_model_parameters: int, fingerprint: str
) -> VariantReport:
    """Report the verifiers of one variant, one per training seed: their mean with intervals, and each one's own gap."""
    per_seed = [ranking_metrics(outcomes, name) for name in verifiers]
    errors = [metrics.expected_calibration_error for metrics in per_seed]
    return VariantReport(
        reads=reads,
        language_model_parameters=language_model_parameters,
        generator_fingerprint=fingerprint,
        best_of_1=bootstrap_mean(outcomes.prompts, random_strategy(outcomes, 1)),
        oracle=bootstrap_mean(outcomes.prompts, oracle_strategy(outcomes, n)),
        best_of_n=bootstrap_mean(outcomes.prompts, best_of_n_outcome(outcomes, verifiers, n)),
        oracle_gap_closed=oracle_gap_closed_interval(outcomes, verifiers, n),
        oracle_gap_closed_per_seed=[oracle_gap_closed_interval(outcomes, [name], n).estimate for name in verifiers],
        pair_accuracy=pair_accuracy_interval(outcomes, verifiers),
        auroc=float(np.mean([metrics.auroc for metrics in per_seed])),
        expected_calibration_error=None if None in errors else float(np.mean([error or 0.0 for error in errors])),
    )


def num_parameters(folder: Path) -> int:
    """Count the weights of a model's safetensors files; tied ones are stored, and counted, once."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            total += sum(int(np.prod(file.get_slice(name).get_shape())) for name in file.keys())  # noqa: SIM118
    return total


def _caption_variants(values: Sequence[str], aligned: bool) -> dict[str, Variant]:
    if not aligned:
        raise InvalidRequest("study captions needs captioned candidates: name a folder of `forejudge caption`")
    known: dict[str, Captions | None] = {"new": "new", "original": "original", _NO_ALIGNMENT: None}
    if unknown := [value for value in values if value not in known]:
        raise InvalidRequest(f"captions {unknown[0]!r}: expected some of {', '.join(known)}")
    return {value: Variant(captions=known[value]) for value in values or known}


def _default_values(choice: str, labels: TrainingData, generator: Generator) -> list[str]:
    match choice:
        case "layers":
            blocks = [name.removeprefix("hidden:") for name in labels.training.store.settings.recorded]
            return [f"hidden:{count}" for count in sorted(int(block) for block in blocks if block.isdecimal())]
        case "loss":
            return list(get_args(VerifierLoss.model_fields["kind"].annotation))
        case "pooling":
            return [str(size) for size in (1, 2, 4) if generator.architecture.latent_size % size == 0]
        case "data":
            rows = len(labels.training)
            return [str(count) for count in dict.fromkeys((rows // 16, rows // 4, rows)) if count]
        case _:
            raise InvalidRequest(f"study {choice} has no default values: name them with --values, such as A,B")


def _named(report: ProgressCallback, name: str) -> ProgressCallback:
    def named(progress: Progress) -> None:
        report(replace(progress, part=f"{name}: {progress.part}"))

    return named
