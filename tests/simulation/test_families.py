"""Families of rules: what --adaptive takes and refuses."""

from types import SimpleNamespace
from typing import Any

import pytest

from forejudge.errors import InvalidRequest
from forejudge.simulation.families import RuleFamily
from tests.support.recordings import PRIOR


def limits(text: str, max_n: int = 4) -> dict[str, dict[str, float]]:
    return {name: rule.options.limits for name, rule in RuleFamily.parse(text).rules(max_n).items()}


def test_the_option_without_a_value_takes_several() -> None:
    assert limits("n,refine_below=0.9") == {f"n={n}": {"n": n} for n in range(1, 5)}
    prices = limits("price,n=3")
    assert prices["price=0.012"] == {"n": 3, "price": 0.012}
    assert len(prices) > 5
    assert limits("until")["until=0.9"] == {"max_n": 4, "until": 0.9}


def test_with_all_values_it_is_one_rule() -> None:
    (rule,) = RuleFamily.parse("price=0.012, refine_below=0.9,batch_size=1").rules(16).values()
    assert (rule.options.price, rule.options.refine_below, rule.options.max_n, rule.batch_size) == (0.012, 0.9, 16, 1)
    assert limits("n=9") == {"n=9": {"n": 4}}, "no more than were recorded"


@pytest.mark.parametrize(("text", "batch_size"), [("n", 32), ("price", 2), ("until,n=8", 2), ("until,batch_size=8", 8)])
def test_searches_that_end_early_take_pairs(text: str, batch_size: int) -> None:
    assert {rule.batch_size for rule in RuleFamily.parse(text).rules(4).values()} == {batch_size}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is unknown"),
        ("cost", "'cost' is unknown or there twice; expected n, until, price, refine_below, batch_size"),
        ("price,price=1", "'price' is unknown or there twice"),
        ("price,until", "expected one of n, until, price, and values of all options but one"),
        ("refine_below", "expected one of n, until, price, and values"),
        ("refine_below=0.9", "expected one of n, until, price, and values"),
        ("price=much", "price = 'much' is no number, such as price,refine_below=0.9"),
        ("n=1.5", "n = '1.5' is no number"),
        ("price=2", "price"),
        ("price,batch_size=0", "batch_size = 0: expected"),
    ],
)
def test_what_is_no_policy_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        RuleFamily.parse(text)


def test_verifiers_that_searches_cannot_use_are_named() -> None:
    verifiers: Any = {
        "all": SimpleNamespace(calibrated=True, prior=PRIOR),
        "no prior": SimpleNamespace(calibrated=True, prior=None),
        "raw": SimpleNamespace(calibrated=False, prior=None),
    }
    assert RuleFamily.parse("n").check(verifiers) == []
    assert [warning.split()[-2] for warning in RuleFamily.parse("until").check(verifiers)] == ["raw"]
    assert [each.split(" leaves ")[1] for each in RuleFamily.parse("price").check(verifiers)] == [
        "no prior out",
        "raw out",
    ]
    with pytest.raises(
        InvalidRequest, match=r"'n,refine_below=0\.9' needs a calibrated verifier.*; raw cannot be used"
    ):
        RuleFamily.parse("n,refine_below=0.9").check({"raw": verifiers["raw"]})
