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


_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def use_compile_cache() -> None:
    """In the user's cache folder, unless the variable names another; PyTorch's own place is a temporary one.

    Comes before anything is compiled. Where nothing can be written, that place has to do.
    """
    try:
        cache_root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = cache_root / "forejudge" / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter where there is no home
        return
    if os.access(folder, os.W_OK):
        os.environ.setdefault(_CACHE_VARIABLE, str(folder))


# FOLDED: The licenses of models of the hub, told once each on stderr.


def print_licenses(sources: "Iterable[Source | None]") -> None:
    """Say under which terms models may be used, the first time that each is; folders are their owner's affair."""
    shown = _shown_models()
    new = {source.model: source for source in sources if source and source.commit and source.model not in shown}
    for model, source in new.items():
        typer.echo(f"license of {model}: {_license_text(source)}", err=True)
    if new:
        with suppress(OutputError):  # told again the next time
            write_text(_shown_licenses_file(), "\n".join([*shown, *new]) + "\n")


def _license_text(source: "Source") -> str:
    from huggingface_hub import constants

    from forejudge.generators import find_spec
    from forejudge.hub import card_license

    spec = find_spec(source.model)
    license = (spec and spec.license) or card_license(str(source.folder)) or "none is stated"
    return f"{license}; its terms are at {constants.ENDPOINT}/{source.model}"


def _shown_licenses_file() -> Path:
    """The file of models whose license was told, under the user's cache (XDG base directory specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forejudge" / "licenses-told.txt"


def _shown_models() -> list[str]:
    try:
        return _shown_licenses_file().read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return []


def load_with_license_notice(name: str, device: str | None, dtype: str) -> "Generator":
    """Load it where and in what the options say; of several processes the first one tells its licenses."""
    from forejudge.device import is_main_process, resolve_device, resolve_dtype
    from forejudge.generators import load_generator

    torch_device = resolve_device(device)
    loaded = load_generator(name, torch_device, resolve_dtype(dtype, torch_device))
    if is_main_process():
        print_licenses(loaded.sources)
    return loaded
