"""The miniature's test as one command runs it: all figures, in one dictionary that JSON can hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forejudge.generators.base import Generator, Sampling
from forejudge.journal import Journal
from forejudge.miniature.controls import ShuffledStates, ZeroedStates
from forejudge.miniature.coupling import NOISE_SHAPE, Asked, couple
from forejudge.miniature.detector import detect
from forejudge.miniature.evaluation import Outcomes, correct_pictures, draw_and_judge_cases, work_digest
from forejudge.miniature.report import averages, best_of_n_table, distance_closed_by, ranking_figures
from forejudge.miniature.scene import render, to_images
from forejudge.miniature.sharpness import edge_widths
from forejudge.miniature.splits import TASKS_SHARING_PROMPTS, TestCase, cases
from forejudge.noise import noise_batch
from forejudge.progress import Report, Stopwatch
from forejudge.provenance import provenance
from forejudge.types import IMAGE
from forejudge.verifiers import load_verifier
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.language_model import LanguageModelVerifier

MORE_STEPS = (2, 4, 8)
SHIPPED = "shipped"
CLOSED_AT = 8  # the N at which the distance closed is reported


@dataclass(frozen=True)
class MiniatureTest:
    """What is tested, and how much of it. `verifiers` go by name, the one to be reported as `SHIPPED`.

    `ns` are the N of the table; `folder` keeps what was drawn, so that a stopped test goes on.
    """

    generator: Generator
    verifiers: Mapping[str, Verifier]
    ns: list[int]
    seeds: int
    per_task: int
    folder: Path
    report: Report

    def figures(self) -> dict[str, Any]:
        """Every figure, beside what it was measured on."""
        held = cases("test", self.per_task)
        outcomes = self._outcomes(held)
        return {
            "provenance": provenance(self.generator.device),
            "test_cases": len(held),
            "distinct_prompts": len({case.description.prompt for case in held}),
            "tasks_sharing_prompts_with_training": sorted(TASKS_SHARING_PROMPTS),
            "seeds": self.seeds,
            "candidates": max(self.ns),
            "generator_fingerprint": self.generator.fingerprint,
            "num_blocks": self.generator.architecture.num_blocks,
            "best_of_n": best_of_n_table(outcomes, SHIPPED, self.ns),
            "verifiers": {name: self._verifier_figures(outcomes, name) for name in self.verifiers},
            "steps": {str(steps): self._steps(held, steps) for steps in (1, *MORE_STEPS)},
            "edge_width": self._edge_width(held[:: max(len(held) // 60, 1)]),
        }

    def _outcomes(self, held: list[TestCase]) -> Outcomes:
        work = work_digest(self.generator, self.verifiers, held, max(self.ns))
        journal = Journal(self.folder / f"candidates-{work}.jsonl")
        return draw_and_judge_cases(
            self.generator, self.verifiers, held, self.seeds, max(self.ns), journal, self.report
        )

    def _verifier_figures(self, outcomes: Outcomes, name: str) -> dict[str, Any]:
        n = min(CLOSED_AT, max(self.ns))
        (stage,) = self.verifiers[name].reads
        closed = distance_closed_by(outcomes, name, n)
        return {"reads": str(stage), f"distance_closed_at_{n}": closed, **ranking_figures(outcomes, name)}

    def _steps(self, held: list[TestCase], steps: int) -> dict[str, Any]:
        """Best-of-1 with more denoising steps: candidate 0 of each case, first seed."""
        work = work_digest(self.generator, {}, held, 1)
        journal = Journal(self.folder / f"steps-{steps}-{work}.jsonl")
        done = len(journal.entries)
        stopwatch = Stopwatch(f"{steps} steps", done, len(held))
        for number, case in enumerate(held[done:], start=done + 1):
            journal.add(self._solved(case, steps))
            self.report(stopwatch.at(number))
        solved_C = np.array(journal.entries[: len(held)], dtype=float)
        return averages([case.description for case in held], solved_C)

    def _solved(self, case: TestCase, steps: int) -> bool:
        group = case.group(seed=0, candidates=1)
        (candidates,) = group.draw(self.generator, [IMAGE], batch_size=1, sampling=Sampling(steps=steps))
        return correct_pictures(group, candidates)[0]

    def _edge_width(self, held: list[TestCase]) -> dict[str, float | None]:
        """Median edge width of detected objects, drawn over rendered, from the same noise; None if none is seen."""
        drawn, rendered = [], []
        for case in held:
            group = case.group(seed=0, candidates=1)
            (candidates,) = group.draw(self.generator, [IMAGE], batch_size=1)
            (picture,) = candidates.pictures
            scene = couple(Asked.of([case.description]), noise_batch(group.seeds, 0, NOISE_SHAPE))
            (truth,) = to_images(render(scene))
            drawn += edge_widths(picture, detect(picture))
            rendered += edge_widths(truth, detect(truth))
        ratio = float(np.median(drawn) / np.median(rendered)) if drawn else None
        return {"ratio": ratio, "objects_drawn": len(drawn), "objects_rendered": len(rendered), "pictures": len(held)}


def load_verifiers(
    shipped: str, others: Sequence[Path], generator: Generator, device: torch.device
) -> dict[str, LanguageModelVerifier]:
    """The verifier to be reported, and others by the names of their folders, each checked against the generator.

    Raises InvalidRequest or CheckpointError for what cannot be loaded, MismatchError for another generator's.
    """
    sources = {SHIPPED: shipped} | {folder.name: str(folder) for folder in others}
    loaded = {}
    for name, source in sources.items():
        verifier = load_verifier(source, device, torch.float32)
        assert isinstance(verifier, LanguageModelVerifier)
        verifier.check(generator)
        loaded[name] = verifier
    return loaded


def with_controls(verifiers: Mapping[str, LanguageModelVerifier]) -> dict[str, Verifier]:
    """And beside the reported one what it says of shuffled and of zeroed states."""
    reported = verifiers[SHIPPED]
    return {**verifiers, "states shuffled": ShuffledStates(reported), "states zeroed": ZeroedStates(reported)}
