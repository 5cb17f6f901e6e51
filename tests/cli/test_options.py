import inspect
import re

from forejudge.best_of_n import BestOfN
from forejudge.cli import options
from forejudge.generators.base import SamplingParams


def quoted_default(option: object) -> str:
    """What an option's help says its default is."""
    found = re.search(r"\(default: (.+?)\)", option.__metadata__[0].help)  # type: ignore[attr-defined]
    assert found
    return found[1]


def test_help_quotes_the_library_defaults() -> None:
    call = inspect.signature(BestOfN.__call__).parameters
    loading = inspect.signature(BestOfN.from_pretrained).parameters
    quoted = {
        options.Seed: call["seed"].default,
        options.TopK: call["top_k"].default,
        options.Steps: SamplingParams().steps,
        options.Generator: loading["generator"].default,
        options.Dtype: loading["dtype"].default,
    }
    for option, default in quoted.items():
        assert quoted_default(option) == str(default)
