"""What verifiers are tested on: prompts, who judges their pictures, and the seeds these are drawn from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name

from forejudge.errors import InvalidRequest
from forejudge.evaluators.base import GENEVAL, Evaluator
from forejudge.prompts.prompt_file import Group, PromptLine, groups_of, prompts_digest, read_prompts

BUILT_IN: dict[str, str] = {"geneval-miniature": "forejudge.miniature.plugin:miniature_benchmark"}


@dataclass(frozen=True)
class Benchmark:
    """`run_seed` says from which run seed the pictures of a user's seed are drawn."""

    name: str
    lines: Sequence[PromptLine]
    evaluator: Evaluator
    run_seed: Callable[[int], int] = int

    @property
    def digest(self) -> str:
        """What tells its prompts from any others: 16 hexadecimal digits."""
        return prompts_digest(self.lines)[:16]

    def groups(self, seed: int, images_per_prompt: int, candidates: int) -> list[list[Group]]:
        """For each line the groups of its images; a prompt that comes again goes on with its next image."""
        lines = [line for line in self.lines for _ in range(images_per_prompt)]
        groups = groups_of(lines, candidates, self.run_seed(seed))
        return [groups[first : first + images_per_prompt] for first in range(0, len(groups), images_per_prompt)]


def load_benchmark(name: str, evaluator: Evaluator | None = None) -> Benchmark:
    """A built-in benchmark, by default with its own evaluator, or a file of prompts with GenEval's metadata.

    Raises InvalidRequest for an unknown name, a file that cannot be read and a line that cannot be judged by.
    """
    if name in BUILT_IN:
        built: Benchmark = resolve_name(BUILT_IN[name])()
        return built if evaluator is None else replace(built, evaluator=evaluator)
    if name == GENEVAL:
        raise InvalidRequest(
            "GenEval's prompts do not come with forejudge: give its own file, --benchmark evaluation_metadata.jsonl"
        )
    path = Path(name)
    if not path.is_file():
        raise InvalidRequest(f"unknown benchmark {name!r}: expected a file of prompts, or one of {', '.join(BUILT_IN)}")
    if evaluator is None:
        raise InvalidRequest(f"who judges pictures of {name}? Name an --evaluator")
    lines = read_prompts(path)
    for line in lines:
        line.geneval_metadata()
    evaluator.check(lines)
    return Benchmark(path.name, lines, evaluator)


def second_evaluators_of(benchmark: Benchmark, evaluators: Sequence[Evaluator]) -> dict[str, Evaluator]:
    """Evaluators beside the benchmark's own, by name.

    Raises InvalidRequest for one that judges already, and for a line that one cannot judge by.
    """
    names = [benchmark.evaluator.name, *(evaluator.name for evaluator in evaluators)]
    if len(set(names)) < len(names):
        raise InvalidRequest(f"one evaluator is named twice among {', '.join(names)}: a second one must be another")
    for evaluator in evaluators:
        evaluator.check(benchmark.lines)
    return dict(zip(names[1:], evaluators, strict=True))
