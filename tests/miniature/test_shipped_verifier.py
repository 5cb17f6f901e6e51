"""The shipped weights solve what their card says: they rank candidates of held-out prompts by what the images show."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from forejudge.candidates.collect import observe
from forejudge.candidates.observers import EvaluationObserver
from forejudge.evaluation.metrics import pair_wins
from forejudge.generators import load_generator
from forejudge.miniature.evaluator import MiniatureEvaluator
from forejudge.miniature.prompts import sample_prompt_lines
from forejudge.noise import split_seed
from forejudge.prompts.prompt_file import groups_of
from forejudge.verifiers import load_verifier
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.language_model import LanguageModelVerifier

CPU = torch.device("cpu")
PROMPTS, CANDIDATES, SEED = 24, 8, 1


@pytest.fixture(scope="module")
def pair_accuracy() -> dict[str, float]:
    """Pair accuracy of the shipped verifiers, and of copies with other weights, on the same candidates."""
    shipped = load_verifier("miniature", CPU, torch.float32)
    assert isinstance(shipped, LanguageModelVerifier)
    generator = load_generator("miniature", CPU, torch.float32)
    cross_attention = load_verifier("miniature-cross-attention", CPU, torch.float32)
    assert cross_attention.check(generator) == []
    verifiers: dict[str, Verifier] = {"shipped": shipped, "cross-attention": cross_attention}
    verifiers |= {"permuted": (permuted := deepcopy(shipped)), "zeroed": (zeroed := deepcopy(shipped))}
    permutations = torch.Generator().manual_seed(0)
    for weight in permuted.model.parameters():
        weight.data = weight.flatten()[torch.randperm(weight.numel(), generator=permutations)].view_as(weight)
    for weight in zeroed.model.connector.parameters():
        weight.data.zero_()
    groups = groups_of(sample_prompt_lines(PROMPTS, "validation", SEED), CANDIDATES, split_seed("validation", SEED))
    observer = EvaluationObserver(verifiers, MiniatureEvaluator(), {})
    rows = observe(generator, groups, observer, batch_size=CANDIDATES).columns
    correct_CN = np.array([row["correct"] for row in rows]).reshape(PROMPTS, CANDIDATES)
    figures = {}
    for name in verifiers:
        score_CN = np.array([row["verdicts"][name]["score"] for row in rows]).reshape(PROMPTS, CANDIDATES)
        wins_C, pairs_C = pair_wins(correct_CN, score_CN)
        assert pairs_C.sum() > 100
        figures[name] = float(wins_C.sum() / pairs_C.sum())
    return figures


@pytest.mark.parametrize("name", ["shipped", "cross-attention"])
def test_a_shipped_verifier_ranks_candidates_as_its_card_says(pair_accuracy: dict[str, float], name: str) -> None:
    """The cards say more than 0.8 of the pairs."""
    assert pair_accuracy[name] > 0.75


@pytest.mark.parametrize("name", ["permuted", "zeroed"])
def test_other_weights_do_not(pair_accuracy: dict[str, float], name: str) -> None:
    """Prompts differ in difficulty, which such weights may know of; pairs are of one prompt."""
    assert pair_accuracy[name] < 0.65
