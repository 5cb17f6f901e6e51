import pytest
from tests.cli.command import made_up

from forejudge.cli.verdict_text import answer, chance, ending, outcome


def test_answer_follows_the_calibrated_probability() -> None:
    candidates = made_up([0.5, 0.49, None], finished=[0]).candidates
    assert [answer(candidate) for candidate in candidates] == ["yes", "no", ""]
    assert [chance(candidate) for candidate in candidates] == ["p(yes) 0.50", "p(yes) 0.49", "score -1.00"]


def test_outcome_says_when_no_candidate_passed() -> None:
    assert "No candidate passed" in outcome(made_up([0.1, 0.4], finished=[1]).record)
    assert "No candidate passed" not in outcome(made_up([0.1, 0.6], finished=[1]).record)
    assert "No candidate passed" not in outcome(made_up([None], finished=[0]).record)


@pytest.mark.parametrize(("ended_by", "said"), [("n", "asked for"), ("budget_ms", "--n 3"), ("until", "candidate 2")])
def test_ending_says_who_ended_the_search(ended_by: str, said: str) -> None:
    record = made_up([0.1, 0.2, 0.9], finished=[2]).record.model_copy(update={"ended_by": ended_by, "unused": 5})
    assert said in ending(record)
    assert "5 drawn beside the last one" in ending(record)
