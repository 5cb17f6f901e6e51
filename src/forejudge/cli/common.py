"""Helpers of several commands: loading a generator, license notices, and the cache of compiled code."""

import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from forejudge.errors import OutputError, printable
from forejudge.files import output_folder, user_cache, write_text
from forejudge.progress import Shard

if TYPE_CHECKING:
    from forejudge.generators.base import Generator
    from forejudge.hub import Source
    from forejudge.prompts.prompt_file import PromptLine


held = ExitStack()
"""Resources of the command that is running; `main` closes it."""

_WHOLE = Shard()
_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def echo(text: str, err: bool = False) -> None:
    """Print a line, on stderr with `err`; characters that steer the terminal are escaped."""
    typer.echo(printable(text), err=err)


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def new_console(stderr: bool = False) -> Console:
    """Return a console that shows text as it is: no markup, emoji codes, highlighting or control characters."""
    return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def hold_output(folder: Path, shard: Shard = _WHOLE) -> None:
    """Prepare an output folder and hold it, or a shard of it, until the command ends. Raises as `output_folder`."""
    held.enter_context(output_folder(folder, shard.number, shard.count))


def use_compile_cache() -> None:
    """Keep compiled code in the user's cache folder for the next start; call it before anything is compiled.

    PyTorch's own place is temporary. It stays if TORCHINDUCTOR_CACHE_DIR is set or the cache cannot be written.
    """
    try:
        folder = user_cache() / "compiled"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # the latter where there is no home
        return
    if os.access(folder, os.W_OK):
        os.environ.setdefault(_CACHE_VARIABLE, str(folder))


def print_licenses(sources: "Iterable[Source | None]") -> None:
    """Print the license of each hub model on stderr the first time it is used; local folders have none to print."""
    shown = _shown_models()
    new = {source.model: source for source in sources if source and source.commit and source.model not in shown}
    for model, source in new.items():
        echo(f"license of {model}: {_license_text(source)}", err=True)
    if new:
        with suppress(OutputError, RuntimeError):  # printed again the next time
            write_text(_shown_licenses_file(), "\n".join([*shown, *new]) + "\n")


def _license_text(source: "Source") -> str:
    from huggingface_hub import constants

    from forejudge.generators import find_spec
    from forejudge.hub import card_license

    spec = find_spec(source.model)
    license = (spec and spec.license) or card_license(str(source.folder)) or "none stated"
    return f"{license}; its terms are at {constants.ENDPOINT}/{source.model}"


def _shown_licenses_file() -> Path:
    """Return the file that lists models whose license was shown."""
    return user_cache() / "licenses-shown.txt"


def _shown_models() -> list[str]:
    try:
        return _shown_licenses_file().read_text(encoding="utf-8").split()
    except (OSError, ValueError, RuntimeError):  # the last where there is no home
        return []


def load_with_license_notice(
    name: str, device: str | None, dtype: str, lines: "Sequence[PromptLine]" = ()
) -> "Generator":
    """Load a generator that can serve the prompts of `lines`; the first of several processes prints licenses."""
    from forejudge.device import is_main_process, resolve_device, resolve_dtype
    from forejudge.generators import load_generator

    torch_device = resolve_device(device)
    torch_dtype = resolve_dtype(dtype, torch_device)
    if lines:
        from forejudge.candidates.collect import check_prompts

        check_prompts(name, lines)
    loaded = load_generator(name, torch_device, torch_dtype)
    if is_main_process():
        print_licenses(loaded.sources)
    return loaded
