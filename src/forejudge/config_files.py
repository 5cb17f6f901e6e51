"""Configurations on disk: pydantic models read from JSON, recorded in a folder, and compared when it is continued."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from forejudge.errors import CheckpointError, InvalidRequest, one_line, validation_message
from forejudge.files import write_shared_text

Config = TypeVar("Config", bound=BaseModel)


def read_config(path: Path, config_class: type[Config]) -> Config:
    """Read a pydantic model from a JSON file. Raises CheckpointError naming the file and the field."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: expected a folder that holds {path.name}")
    try:
        return config_class.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise CheckpointError(f"{path}: {validation_message(error)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read ({one_line(str(error))})") from None


def refuse_other_config(path: Path, config: BaseModel) -> None:
    """Compare a run's configuration with the one recorded at `path`, if there is one.

    Raises InvalidRequest naming the first field that differs and both values.
    """
    if not path.exists():
        return
    recorded = read_config(path, type(config))
    for name, old in recorded:
        new = getattr(config, name)
        if old != new:
            raise InvalidRequest(
                f"{path.parent} was begun with {name} = {old}, this run has {name} = {new}: choose another --out, or "
                "the same settings to continue"
            )


def record_config(path: Path, config: BaseModel) -> None:
    """Record the configuration a folder is begun with, or check that it is continued with the same one.

    Raises InvalidRequest as `refuse_other_config` does, and OutputError.
    """
    if not path.exists():
        write_shared_text(path, config.model_dump_json(indent=2) + "\n")
    refuse_other_config(path, config)
