"""Benchmarks that verifiers are tested on: prompts, the evaluator of their images, and their seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from forejudge.errors import InvalidRequest
from forejudge.evaluators.base import Evaluator
from forejudge.evaluators.loading import GENEVAL
from forejudge.files import is_file
from forejudge.plugins import load_object, registered
from forejudge.prompts.prompt_file import Group, PromptLine, groups_of, prompts_digest, read_prompts


@dataclass(frozen=True)
class Benchmark:
    """Prompt lines and their evaluator. `run_seed` maps a user's seed to the run seed of the candidates."""

    name: str
    lines: Sequence[PromptLine]
    evaluator: Evaluator
    run_seed: Callable[[int], int] = int

    @property
    def digest(self) -> str:
        """Digest of the prompts: 16 hexadecimal digits."""
        return prompts_digest(self.lines)[:16]

    def groups(self, seed: int, images_per_prompt: int, candidates: int) -> list[list[Group]]:
        """Return the groups of each line's images; a repeated prompt continues with its next image."""
        lines = [line for line in self.lines for _ in range(images_per_prompt)]
        groups = groups_of(lines, candidates, self.run_seed(seed))
        return [groups[first : first + images_per_prompt] for first in range(0, len(groups), images_per_prompt)]


def load_benchmark(name: str, evaluator: Evaluator | None = None) -> Benchmark:
    """Load a plug-in's benchmark, by default with its own evaluator, or a prompt file with GenEval's metadata.

    Raises InvalidRequest for an unknown name, an unreadable file and a line that cannot be evaluated by.
    """
    known = registered(lambda plugin: plugin.benchmarks)
    if name in known:
        built: Benchmark = load_object(known[name], "benchmark")()
        if evaluator is None:
            return built
        evaluator.check(built.lines)
        return replace(built, evaluator=evaluator)
    if name == GENEVAL:
        raise InvalidRequest(
            "GenEval's prompts do not come with forejudge: give its own file, --benchmark evaluation_metadata.jsonl"
        )
    path = Path(name)
    if not is_file(path):
        raise InvalidRequest(f"unknown benchmark {name!r}: expected a prompt file, or one of {', '.join(known)}")
    if evaluator is None:
        raise InvalidRequest(f"benchmark {name} has no evaluator of its own: name an --evaluator")
    lines = read_prompts(path)
    for line in lines:
        line.geneval_metadata()
    evaluator.check(lines)
    return Benchmark(path.name, lines, evaluator)


def second_evaluators_of(benchmark: Benchmark, evaluators: Sequence[Evaluator]) -> dict[str, Evaluator]:
    """Return the evaluators beside the benchmark's own, by name.

    Raises InvalidRequest for an evaluator named twice, and for a line that one of them cannot evaluate by.
    """
    names = [benchmark.evaluator.name, *(evaluator.name for evaluator in evaluators)]
    if len(set(names)) < len(names):
        raise InvalidRequest(f"one evaluator is named twice among {', '.join(names)}: a second one must be another")
    for evaluator in evaluators:
        evaluator.check(benchmark.lines)
    return dict(zip(names[1:], evaluators, strict=True))
