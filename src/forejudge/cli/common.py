"""A generator on its own, for commands that draw or train."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from forejudge.errors import OutputError
from forejudge.files import write_text

if TYPE_CHECKING:
    from forejudge.generators.base import Generator
    from forejudge.hub import Source


# FOLDED: Where the commands keep what torch.compile made, for the next start.


_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def keep_compiled() -> None:
    """In the user's cache folder, unless the variable names another; PyTorch's own place is a temporary one.

    Comes before anything is compiled. Where nothing can be written, that place has to do.
    """
    try:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = caches / "forejudge" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter where there is no home
        return
    if os.access(folder, os.W_OK):
        os.environ.setdefault(_VARIABLE, str(folder))


# FOLDED: The licences of models of the hub, told once each on stderr.


def tell_licences(sources: "Iterable[Source | None]") -> None:
    """Say under which terms models may be used, the first time that each is; folders are their owner's affair."""
    told = _told()
    new = {source.model: source for source in sources if source and source.commit and source.model not in told}
    for model, source in new.items():
        typer.echo(f"licence of {model}: {_licence(source)}", err=True)
    if new:
        with suppress(OutputError):  # told again the next time
            write_text(_memory(), "\n".join([*told, *new]) + "\n")


def _licence(source: "Source") -> str:
    from huggingface_hub import constants

    from forejudge.generators import find_spec
    from forejudge.hub import stated_licence

    spec = find_spec(source.model)
    licence = (spec and spec.licence) or stated_licence(str(source.folder)) or "none is stated"
    return f"{licence}; its terms are at {constants.ENDPOINT}/{source.model}"


def _memory() -> Path:
    """The file of models whose licence was told, under the user's cache (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forejudge" / "licences-told.txt"


def _told() -> list[str]:
    try:
        return _memory().read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return []


def load_told(name: str, device: str | None, dtype: str) -> "Generator":
    """Load it where and in what the options say; of several processes the first one tells its licences."""
    from forejudge.device import is_first_process, resolve_device, resolve_dtype
    from forejudge.generators import load_generator

    where = resolve_device(device)
    loaded = load_generator(name, where, resolve_dtype(dtype, where))
    if is_first_process():
        tell_licences(loaded.sources)
    return loaded
