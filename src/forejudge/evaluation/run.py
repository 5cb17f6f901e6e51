"""Drawing and judging a benchmark: every candidate is finished, shown to all verifiers and to every evaluator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from PIL.Image import Image

from forejudge.device import dtype_name
from forejudge.evaluation.benchmarks import Benchmark
from forejudge.evaluation.evaluation_folder import EvaluationFolder, EvaluationSettings
from forejudge.evaluation.evaluators import Evaluator
from forejudge.evaluation.groups import Group
from forejudge.files import held_alone
from forejudge.generators.base import Generator, Sampling
from forejudge.progress import Report, Stopwatch
from forejudge.shard import Shard
from forejudge.types import IMAGE, Candidates
from forejudge.verifiers.base import Verifier

_ONE_STEP = Sampling()


@dataclass(frozen=True)
class Evaluation:
    """What is drawn, and who says what of it. All verifiers see the same `candidates` of each image.

    The benchmark's evaluator decides what is right; `second_evaluators`, by name, say it too.
    """

    generator: Generator
    verifiers: Mapping[str, Verifier]
    benchmark: Benchmark
    candidates: int
    images_per_prompt: int = 1
    seeds: int = 1
    sampling: Sampling = _ONE_STEP
    batch_size: int = 16
    second_evaluators: Mapping[str, Evaluator] = field(default_factory=dict)

    @cached_property
    def settings(self) -> EvaluationSettings:
        """What decides the rows."""
        return EvaluationSettings(
            generator=self.generator.name,
            revision=self.generator.fingerprint,
            dtype=dtype_name(self.generator.dtype),
            benchmark=self.benchmark.name,
            benchmark_digest=self.benchmark.digest,
            evaluator=self.benchmark.evaluator.name,
            verifiers={name: verifier.digest for name, verifier in self.verifiers.items()},
            reads={name: ", ".join(map(str, sorted(each.reads))) for name, each in self.verifiers.items()},
            prompts=len(self.benchmark.lines),
            seeds=self.seeds,
            images_per_prompt=self.images_per_prompt,
            candidates=self.candidates,
            steps=self.sampling.steps,
            second_evaluators=tuple(self.second_evaluators),
        )

    def run(self, folder: EvaluationFolder, shard: Shard, report: Report) -> None:
        """Draw the shard's prompts that are not in the folder yet; a kill loses the one in flight.

        Raises InvalidRequest where the folder was begun with other settings, OutputError where it cannot be written,
        and whatever the evaluator raises.
        """
        folder.begin(self.settings)
        mine = list(shard.of(self.settings.prompts))
        left = [prompt for prompt in mine if not folder.has(prompt)]
        stopwatch = Stopwatch("evaluation", len(mine) - len(left), len(mine))
        with held_alone(folder.path / f".{shard.number}-of-{shard.count}.lock"):
            for done, prompt in enumerate(left, start=len(mine) - len(left) + 1):
                self._draw(prompt, folder)
                report(stopwatch.at(done, "prompts"))

    def _draw(self, prompt: int, folder: EvaluationFolder) -> None:
        line, rows = self.benchmark.lines[prompt], self._rows(prompt)
        # All pictures of the prompt as one group: few candidates each would be drawn in small batches.
        pictures, said = self._drawn(Group(line, 0, tuple(row["candidate_seed"] for row in rows)))
        lines = [line] * len(pictures)
        judgements = self.benchmark.evaluator(lines, pictures)
        also = {name: judge(lines, pictures) for name, judge in self.second_evaluators.items()}
        for at, (row, judgement, verdicts) in enumerate(zip(rows, judgements, said, strict=True)):
            row |= {"correct": judgement.correct, "reason": judgement.reason, "verdicts": verdicts}
            row["also_correct"] = {name: judged[at].correct for name, judged in also.items()}
        folder.write(prompt, line.metadata, rows, [pictures[at] for at, row in enumerate(rows) if row["sample"]])

    def _rows(self, prompt: int) -> list[dict[str, Any]]:
        """What is known of each candidate before it is drawn; pictures of the first seed are kept as samples."""
        rows: list[dict[str, Any]] = []
        for seed, groups in enumerate(self._groups):
            for group in groups[prompt]:
                for index, candidate_seed in enumerate(group.seeds):
                    sample = f"{len(rows):04d}.png" if seed == 0 else None
                    where = {"seed": seed, "image_index": group.image_index, "index": index}
                    rows.append({**where, "sample": sample, "candidate_seed": candidate_seed})
        return rows

    def _drawn(self, group: Group) -> tuple[list[Image], list[dict[str, Any]]]:
        """Finished pictures, and what every verifier says of each."""
        stages = {stage for verifier in self.verifiers.values() for stage in verifier.reads} | {IMAGE}
        pictures: list[Image] = []
        said: list[dict[str, Any]] = []
        for candidates in group.draw(self.generator, stages, self.batch_size, self.sampling):
            pictures += candidates.pictures
            said += self._verdicts(group.line.prompt, candidates)
        return pictures, said

    def _verdicts(self, prompt: str, candidates: Candidates) -> list[dict[str, Any]]:
        """What every verifier says of each candidate, by its name."""
        by_verifier = {name: verifier.judge(prompt, candidates) for name, verifier in self.verifiers.items()}
        return [
            {
                name: {"score": verdicts[row].score, "probability": verdicts[row].probability}
                for name, verdicts in by_verifier.items()
            }
            for row in range(len(candidates))
        ]

    @cached_property
    def _groups(self) -> list[list[list[Group]]]:
        """By seed, then by prompt."""
        return [self.benchmark.groups(seed, self.images_per_prompt, self.candidates) for seed in range(self.seeds)]
