"""The controls: another candidate's state, or none, and nothing else changed."""

from pathlib import Path

import pytest
import torch

from forejudge.evaluation.suite import ShuffledStates, ZeroedStates
from forejudge.types import Candidates, prefix_stage
from forejudge.verifiers import load_verifier
from forejudge.verifiers.language_model import LanguageModelVerifier
from tests.support.doubles import CPU, PROMPT

CUT = prefix_stage(2)


@pytest.fixture(scope="module")
def verifier(tiny_verifier: Path) -> LanguageModelVerifier:
    found = load_verifier(str(tiny_verifier), CPU, torch.float32)
    assert isinstance(found, LanguageModelVerifier)
    return found


@pytest.fixture
def candidates() -> Candidates:
    hidden_NTD = torch.randn(6, 64, 64, generator=torch.Generator().manual_seed(0))
    return Candidates(tuple(range(6)), CUT, {CUT: hidden_NTD}, torch.arange(6))


def test_shuffled_states_give_the_same_verdicts_to_other_candidates(
    verifier: LanguageModelVerifier, candidates: Candidates
) -> None:
    own = [verdict.score for verdict in verifier.score(PROMPT, candidates)]
    control = ShuffledStates(verifier)
    shuffled = [verdict.score for verdict in control.score(PROMPT, candidates)]
    assert sorted(shuffled) == pytest.approx(sorted(own), abs=1e-6)
    assert sorted(range(6), key=shuffled.__getitem__) != sorted(range(6), key=own.__getitem__)
    assert shuffled == [verdict.score for verdict in control.score(PROMPT, candidates)]


def test_zeroed_states_leave_the_prompt_alone_to_decide(
    verifier: LanguageModelVerifier, candidates: Candidates
) -> None:
    control = ZeroedStates(verifier)
    scores = [verdict.score for verdict in control.score(PROMPT, candidates)]
    assert scores == pytest.approx([scores[0]] * 6, abs=1e-5)  # rounded by place in the batch
    other = control.score("a photo of three stars", candidates)[0]
    assert abs(other.score - scores[0]) > 1e-4
