"""Best-of-N for one-step diffusion transformers: score candidates early, finish only the best."""

TYPE_CHECKING = False  # importing typing takes time in which Ctrl-C shows a traceback
if TYPE_CHECKING:
    from typing import Any

    from forejudge.best_of_n import BestOfN as BestOfN
    from forejudge.errors import ForejudgeError as ForejudgeError
    from forejudge.options import SamplingParams as SamplingParams
    from forejudge.options import SearchOptions as SearchOptions
    from forejudge.result import Result as Result

    __version__: str

__all__ = ["BestOfN", "ForejudgeError", "Result", "SamplingParams", "SearchOptions", "__version__"]
_MODULES = {
    "BestOfN": "best_of_n",
    "ForejudgeError": "errors",
    "Result": "result",
    "SamplingParams": "options",
    "SearchOptions": "options",
}


def __getattr__(name: str) -> "Any":
    """Look up a public name on first use: model libraries take seconds to load."""
    if name == "__version__":
        from importlib.metadata import version

        return version("forejudge")
    from importlib import import_module

    if name not in _MODULES:
        raise AttributeError(f"module 'forejudge' has no attribute {name!r}")
    return getattr(import_module(f"forejudge.{_MODULES[name]}"), name)
