"""How a generator is named with options: `sana-sprint-1.6b,max_timesteps=1.5,use_resolution_binning=false`."""

import json
from pathlib import Path
from typing import Any

from forejudge.errors import InvalidRequest


def split_options(name: str) -> tuple[str, dict[str, Any]]:
    """A name, folder or hub id, and the options after it; values are JSON, or text that is none.

    Raises InvalidRequest for an option without a value.
    """
    if Path(name).exists():
        return name, {}
    model, *options = name.split(",")
    for option in options:
        if "=" not in option:
            raise InvalidRequest(f"generator {name!r}: {option!r} is no option, expected NAME=VALUE after each comma")
    return model, {key: _value(text) for key, _, text in (option.partition("=") for option in options)}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
