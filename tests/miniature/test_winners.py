"""What a search leaves out for speed changes no winner: the miniature's whole test, against the plain way."""

import pytest
import torch

from forejudge.best_of_n import BestOfN
from forejudge.generators.base import Generator
from forejudge.miniature.evaluator import miniature_benchmark
from forejudge.prompts.prompt_file import groups_of
from forejudge.verifiers.base import Verifier

N = 8
ALIKE = 0.995  # of the winners
PER_TASK = 100


def plain_scores(generator: Generator, verifier: Verifier, prompt: str, seeds: tuple[int, ...]) -> torch.Tensor:
    """The prompt encoded as the pipeline's own call does."""
    candidates = generator.start(generator.encode(prompt, generator.defaults), seeds)
    verdicts = verifier.score(prompt, generator.advance(candidates, verifier.reads))
    return torch.tensor([verdict.score for verdict in verdicts])


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_searches_choose_as_the_plain_way_does(compiled: bool) -> None:
    plain, same, furthest = BestOfN.from_pretrained(device="cpu"), 0, 0.0
    best = BestOfN(plain.generator, plain.verifier, compiled=compiled)
    groups = groups_of(miniature_benchmark(PER_TASK).lines, N, run_seed=0)
    for group in groups:
        prompt, seeds = group.line.prompt, group.seeds
        plain_N = plain_scores(plain.generator, plain.verifier, prompt, seeds)
        found = best(prompt, seeds=seeds)
        found_N = torch.tensor([candidate.score for candidate in found.candidates])
        furthest = max(furthest, float((found_N - plain_N).abs().max()))
        same += found.record.winner == int(plain_N.argmax())
    print(f"compiled={compiled}: {same} of {len(groups)} winners alike, scores within {furthest:.1e}")
    assert same >= ALIKE * len(groups)
    assert furthest < 1e-3
