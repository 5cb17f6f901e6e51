"""Judge an image before it is drawn: pick the best of N candidates of a one-step diffusion transformer."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from forejudge.best_of_n import BestOfN as BestOfN
    from forejudge.errors import ForejudgeError as ForejudgeError
    from forejudge.generators.base import SamplingParams as SamplingParams
    from forejudge.result import Result as Result


__version__ = version("forejudge")
_LAZY_IMPORTS = {
    "BestOfN": "best_of_n",
    "ForejudgeError": "errors",
    "Result": "result",
    "SamplingParams": "generators.base",
}
__all__ = ["BestOfN", "ForejudgeError", "Result", "SamplingParams", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: model libraries take seconds."""
    if name not in _LAZY_IMPORTS:
        raise AttributeError(f"module 'forejudge' has no attribute {name!r}")
    return getattr(import_module(f"forejudge.{_LAZY_IMPORTS[name]}"), name)
