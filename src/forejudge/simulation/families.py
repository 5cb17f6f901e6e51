"""Families of rules, as `forejudge eval --adaptive` names them: some options are set beforehand, costs set one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forejudge.errors import InvalidRequest
from forejudge.evaluation.report import FIXED
from forejudge.expected_improvement import Prior
from forejudge.options import SearchOptions, check_count, parse_options
from forejudge.search import DEFAULT_MAX_BATCH_SIZE
from forejudge.simulation.rules import PAIRS, Grid, Rule
from forejudge.verifiers.base import Verifier

_UNTILS = (0.3, *Grid.untils, 0.99, 0.995)
_PRICES = (0.0005, *Grid.prices, 0.048, 0.096)
_LIMITS, _OTHERS = ("n", "until", "price"), ("refine_below", "batch_size")


@dataclass(frozen=True)
class RuleFamily:
    """Rules that differ in the value of the `open` option, or one rule where no option is open.

    Only costs choose among the values, so that nothing is tuned on the labels of a test. `batch_size` is the most
    candidates at once.
    """

    name: str
    options: SearchOptions
    open: str | None
    batch_size: int

    @classmethod
    def fixed(cls) -> "RuleFamily":
        """Return fixed Best-of-N at any N."""
        return cls(FIXED, SearchOptions(), "n", DEFAULT_MAX_BATCH_SIZE)

    @classmethod
    def parse(cls, text: str) -> "RuleFamily":
        """Parse options such as "price,refine_below=0.9", where a name without a value is open.

        Raises InvalidRequest for an unknown option or a value out of range, and unless a limit is given or open.
        """
        given: dict[str, Any] = {}
        for part in text.split(","):
            name, has_value, value = part.strip().partition("=")
            if name not in (*_LIMITS, *_OTHERS) or name in given:
                raise _refusal(text, f"{name!r} is unknown or there twice; expected {', '.join(_LIMITS + _OTHERS)}")
            given[name] = _number(text, name, value) if has_value else None
        opened = [name for name, value in given.items() if value is None]
        if len(opened) > 1 or not set(opened) <= set(_LIMITS) or not given.keys() & set(_LIMITS):
            raise _refusal(text, f"expected one of {', '.join(_LIMITS)}, and values of all options but one of them")
        has_policy = given.keys() & {"until", "price"}
        default = PAIRS if has_policy else DEFAULT_MAX_BATCH_SIZE
        batch_size = check_count("batch_size", given.pop("batch_size", default), maximum=DEFAULT_MAX_BATCH_SIZE)
        options = {name: value for name, value in given.items() if value is not None}
        return cls(text, parse_options(SearchOptions, options), next(iter(opened), None), batch_size)

    def can_use(self, *, calibrated: bool, prior: Prior | None) -> bool:
        """Return whether searches can use a verifier: all but those of fixed N ask for one that is calibrated."""
        limits = {name for name in _LIMITS if name == self.open or getattr(self.options, name) is not None}
        needs_probability = self.options.refine_below > 0 or limits != {"n"}
        return (calibrated or not needs_probability) and (prior is not None or "price" not in limits)

    def check(self, verifiers: Mapping[str, Verifier]) -> list[str]:
        """Return a warning for each verifier it cannot use. Raises InvalidRequest if it can use none."""
        unusable = [
            name for name, each in verifiers.items() if not self.can_use(calibrated=each.calibrated, prior=each.prior)
        ]
        lacks = "a calibrated verifier, and for a price one with a prior"
        if len(unusable) == len(verifiers):
            raise InvalidRequest(f"--adaptive {self.name!r} needs {lacks}; {', '.join(unusable)} cannot be used")
        return [f"--adaptive {self.name!r} needs {lacks}: it leaves {name} out" for name in unusable]

    def rules(self, max_n: int) -> dict[str, Rule]:
        """Return the rules of up to `max_n` candidates, by a name for the value of each."""
        if self.open is None:
            return {self.name: self._rule(max_n)}
        values = {"n": range(1, max_n + 1), "until": _UNTILS, "price": _PRICES}[self.open]
        return {f"{self.open}={value:g}": self._rule(max_n, **{self.open: value}) for value in values}

    def _rule(self, max_n: int, **values: float) -> Rule:
        options = self.options.model_dump(exclude_unset=True) | values
        capped = {"n": min(options["n"], max_n)} if "n" in options else {"max_n": max_n}
        return Rule(self.name, parse_options(SearchOptions, options | capped), self.batch_size)


def _number(text: str, name: str, value: str) -> float:
    try:
        return int(value) if name in ("n", "batch_size") else float(value)
    except ValueError:
        raise _refusal(text, f"{name} = {value!r} is no number") from None


def _refusal(text: str, problem: str) -> InvalidRequest:
    return InvalidRequest(f"--adaptive {text!r}: {problem}, such as price,refine_below=0.9")
