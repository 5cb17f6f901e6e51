"""A finished evaluation as one page: tables, plots and a gallery. Raises MissingExtra without matplotlib."""

from importlib.util import find_spec

from forejudge.errors import MissingExtra

if find_spec("matplotlib") is None:
    raise MissingExtra("matplotlib", "plots")
