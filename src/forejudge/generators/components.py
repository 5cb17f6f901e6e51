"""Checks of a pipeline's components: none is missing, each tokenizer fits its text encoder, schedulers are valid."""

import inspect
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from forejudge.checkpoint import checkpoint_errors, quiet_libraries
from forejudge.errors import CheckpointError, validation_message
from forejudge.files import is_file
from forejudge.library_models import check_vocabulary

_SCHEDULER_FILE = "scheduler_config.json"
_Positive = Annotated[float, Field(ge=1e-6, le=1e6)]
_BOUNDS: dict[str, Any] = {
    "num_train_timesteps": Annotated[int, Field(ge=1, le=10**6)],
    "sigma_data": _Positive,
    "shift": _Positive,
}


def missing_components(pipeline_class: Any, present: Collection[str], optional: Collection[str]) -> list[str]:
    """Return the components that the constructor of a pipeline needs and that are not `present`."""
    parameters = list(inspect.signature(pipeline_class.__init__).parameters.values())[1:]
    needed = [parameter.name for parameter in parameters if parameter.default is inspect.Parameter.empty]
    return [name for name in needed if name not in present and name not in optional]


def check_tokenizers(components: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a tokenizer with more tokens than its text encoder embeds."""
    for name, tokenizer in components.items():
        text_encoder = components.get(name.replace("tokenizer", "text_encoder"))
        if name.startswith("tokenizer") and hasattr(text_encoder, "get_input_embeddings"):
            check_vocabulary(tokenizer, text_encoder)


def load_scheduler(scheduler_class: Any, folder: Path, changes: Mapping[str, Any] | None = None) -> Any:
    """Load a scheduler, with changes to its config. Raises CheckpointError that names the file and the field."""
    path = folder / _SCHEDULER_FILE
    if not is_file(path):
        raise CheckpointError(f"{path} is missing: expected the config of a {scheduler_class.__name__}")
    with checkpoint_errors(path):
        fields = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(fields, dict):
        raise CheckpointError(f"{path} holds no JSON object: get it again")
    types = _field_types(scheduler_class) | _BOUNDS
    for name in types.keys() & fields.keys():
        _check_field(path, name, fields[name], types[name])
    with checkpoint_errors(path), quiet_libraries():
        return scheduler_class.from_pretrained(folder, local_files_only=True, **changes or {})


def _field_types(scheduler_class: Any) -> dict[str, Any]:
    """Return the types of a scheduler's fields. Some annotations are wrong, so a default's own type is taken too.

    A choice may be null: schedulers are also made from the configs of others, which leave choices open.
    """
    hints = get_type_hints(scheduler_class.__init__)
    defaults = {name: field.default for name, field in inspect.signature(scheduler_class.__init__).parameters.items()}
    types = {
        name: hints[name] | type(defaults[name])
        for name in hints.keys() & defaults.keys()
        if isinstance(defaults[name], bool | int | float | str)
    }
    return types | {name: types[name] | None for name in types if isinstance(defaults[name], str)}


def _check_field(path: Path, name: str, value: Any, field_type: Any) -> None:
    field: TypeAdapter[Any] = TypeAdapter(field_type, config=ConfigDict(arbitrary_types_allowed=True))
    try:
        field.validate_json(json.dumps(value), strict=True)  # JSON has lists where the constructor takes tuples
    except ValidationError as error:
        raise CheckpointError(
            f"{path}: {name} = {value!r}: {validation_message(error)}; correct it, or get the file again"
        ) from None
