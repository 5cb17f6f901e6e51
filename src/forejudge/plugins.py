"""Objects by name: `module:attribute` as users spell it, and plug-ins that other packages register."""

from pkgutil import resolve_name
from typing import Any

from forejudge.errors import InvalidRequest, one_line


def is_import_path(name: str) -> bool:
    """Return whether a name is spelled `package.module:attribute`."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def load_object(import_path: str, role: str) -> Any:
    """Import `package.module:attribute`; `role` says in the error what it was to be, such as "verifier".

    Raises InvalidRequest where the module or the attribute does not exist.
    """
    if not is_import_path(import_path):
        raise InvalidRequest(f"{role} {import_path!r}: expected module:attribute, such as my_package.scores:score")
    try:
        return resolve_name(import_path)
    except (ImportError, AttributeError) as error:
        raise InvalidRequest(f"{role} {import_path!r} cannot be imported: {one_line(str(error))}") from None
