"""Configurations on disk: pydantic models read from JSON, recorded in a folder, and compared when it is continued."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from forejudge.errors import CheckpointError, InvalidRequest, validation_message
from forejudge.files import exists, is_file, write_text

Config = TypeVar("Config", bound=BaseModel)


def read_config(path: Path, config_class: type[Config], remedy: str = "correct it, or make it again") -> Config:
    """Read a pydantic model from a JSON file. Raises CheckpointError naming the file, the field and the remedy."""
    if not is_file(path):
        raise CheckpointError(f"{path} is missing: expected a folder that holds {path.name}")
    try:
        return config_class.model_validate_json(_read_bytes(path))
    except ValidationError as error:
        raise CheckpointError(f"{path}: {validation_message(error)}; {remedy}") from None


def read_json_lines(path: Path, entry_class: type[Config]) -> list[Config]:
    """Read a pydantic model from each line of a file, if there is one; blank lines and a torn last one are left out.

    Raises CheckpointError naming the file, the line and the field.
    """
    lines = _read_bytes(path).split(b"\n") if exists(path) else []
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entries += [entry_class.model_validate_json(line)] if line.strip() else []
        except ValidationError as error:
            if number < len(lines) or error.errors()[0]["type"] != "json_invalid":
                problem = validation_message(error)
                raise CheckpointError(
                    f"{path}, line {number}: {problem}; remove this line, or rename the file"
                ) from None
    return entries


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): expected a file that can be read") from None


def refuse_other_config(path: Path, config: BaseModel) -> None:
    """Compare a run's configuration with the one recorded at `path`, if there is one.

    Models are compared by digest: a class lists the fields that only name them as `model_names`, and a digest is None
    until the models are loaded. Raises InvalidRequest naming the first field that differs and both values.
    """
    if not exists(path):
        return
    recorded = read_config(path, type(config), "correct it, or choose another --out")
    names = getattr(config, "model_names", ())
    for name, old in recorded:
        new = getattr(config, name)
        if old != new and name not in names and not (name.endswith("_digest") and new is None):
            raise InvalidRequest(
                f"{path.parent} was begun with {name} = {old}, this run has {name} = {new}: choose another --out, or "
                "the same settings to continue"
            )


def record_config(path: Path, config: BaseModel) -> None:
    """Record the configuration a folder is begun with, or check that it is continued with the same one.

    Raises InvalidRequest as `refuse_other_config` does, and OutputError.
    """
    if not exists(path):
        write_text(path, config.model_dump_json(indent=2) + "\n")
    refuse_other_config(path, config)
