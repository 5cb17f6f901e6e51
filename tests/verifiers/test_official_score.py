"""The score of the published method, against what it recorded."""

import json
from pathlib import Path

import pytest
from tests.doubles import CPU
from tests.verifiers.official import OFFICIAL, candidates
from torch import float32, nn, zeros

from forejudge.errors import InvalidRequest
from forejudge.verifiers import load_verifier
from forejudge.verifiers.language_model import LanguageModelVerifier
from forejudge.verifiers.official_score import official_score, official_scores


def test_it_is_p_yes_or_less_p_no_as_recorded() -> None:
    for case in json.loads((OFFICIAL / "expected_scores.json").read_text())["scores"]:
        assert official_score(case["p_yes"], case["p_no"], case["top_token_text"]) == case["score"]


@pytest.mark.parametrize(
    ("most_likely", "score"), [("yes", 0.5), ("Yes", 0.5), ("no", -0.2), ("", -0.2), ("nay", -0.2)]
)
def test_any_other_answer_counts_as_no(most_likely: str, score: float) -> None:
    assert official_score(0.5, 0.2, most_likely) == score


def test_a_head_gives_none(tiny_verifier: Path) -> None:
    verifier = load_verifier(str(tiny_verifier), CPU, float32)
    assert isinstance(verifier, LanguageModelVerifier)
    verifier.model.head = nn.Linear(64, 1)
    with pytest.raises(InvalidRequest, match="answers by a head"):
        official_scores(verifier, "a star", candidates(zeros(1, 64, 64)))
