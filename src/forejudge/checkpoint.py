"""Reading model folders: every problem becomes one line that names the file and what to do."""

from contextlib import contextmanager
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from forejudge.errors import CheckpointError

Config = TypeVar("Config", bound=BaseModel)


def read_config(path: Path, kind: type[Config]) -> Config:
    """A pydantic model from a JSON file. Raises CheckpointError naming the file and the field."""
    try:
        return kind.model_validate_json(path.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing: {path.parent} holds no {kind.__name__}") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise CheckpointError(f"{path}: {field}: {first['msg']}") from None


def load_strictly(module: nn.Module, path: Path) -> None:
    """Fill a module from a safetensors file. Raises CheckpointError naming a missing, extra or misshapen tensor."""
    with named_file(path):
        tensors = load_file(path)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(
                f"{path}: tensor {name} has shape {found.get(name, 'none (missing)')}, expected "
                f"{expected.get(name, 'none (not part of the model)')}"
            )
    module.load_state_dict(tensors)


@contextmanager
def named_file(path: Path) -> Iterator[None]:
    """Turn what libraries raise about a model file or folder into one line that names it."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, KeyError, EOFError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be loaded, it is missing, truncated or of another kind ({reason[:200]})"
        ) from error
