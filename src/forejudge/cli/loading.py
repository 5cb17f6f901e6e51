"""A generator on its own, for commands that draw or train."""

from typing import TYPE_CHECKING

from forejudge.cli.licences import tell_licences

if TYPE_CHECKING:
    from forejudge.generators.base import Generator


def load_told(name: str, device: str | None, dtype: str) -> "Generator":
    """Load it where and in what the options say; of several processes the first one tells its licences."""
    from forejudge.device import is_first_process, resolve_device, resolve_dtype
    from forejudge.generators import load_generator

    where = resolve_device(device)
    loaded = load_generator(name, where, resolve_dtype(dtype, where))
    if is_first_process():
        tell_licences(loaded.sources)
    return loaded
