"""Optimizations of the search change no winner: the miniature's whole test against the reference computation."""

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


def reference_scores(generator: Generator, verifier: Verifier, prompt: str, seeds: tuple[int, ...]) -> torch.Tensor:
    """Score candidates of a prompt that is encoded as in the pipeline's own call."""
    candidates = generator.start(generator.encode(prompt, generator.defaults), seeds)
    verdicts = verifier.score(prompt, generator.advance(candidates, verifier.reads))
    return torch.tensor([verdict.score for verdict in verdicts])


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_searches_choose_the_reference_winners(compiled: bool) -> None:
    reference, same, furthest = BestOfN.from_pretrained(device="cpu"), 0, 0.0
    best_of_n = BestOfN(reference.generator, reference.verifier, compiled=compiled)
    groups = groups_of(miniature_benchmark(PER_TASK).lines, N, run_seed=0)
    for group in groups:
        prompt, seeds = group.line.prompt, group.seeds
        reference_N = reference_scores(reference.generator, reference.verifier, prompt, seeds)
        result = best_of_n(prompt, seeds=seeds)
        scores_N = torch.tensor([candidate.score for candidate in result.candidates])
        furthest = max(furthest, float((scores_N - reference_N).abs().max()))
        same += result.record.winner == int(reference_N.argmax())
    print(f"compiled={compiled}: {same} of {len(groups)} winners alike, scores within {furthest:.1e}")
    assert same >= ALIKE * len(groups)
    assert furthest < 1e-3
