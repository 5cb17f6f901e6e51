"""Reading model folders: every problem becomes one line that names the file and what is wrong with it."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, TypeVar
from warnings import catch_warnings, simplefilter
from zipfile import is_zipfile

import torch
from pydantic import BaseModel, ValidationError
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from forejudge.errors import CheckpointError, ForejudgeError, MissingExtra

Config = TypeVar("Config", bound=BaseModel)
Shape = tuple[int, ...]
_WEIGHTS = "model.safetensors"
PICKLED_WEIGHTS = "diffusion_pytorch_model.bin"  # diffusers'; it is opened as tensors alone
_OTHER_WEIGHTS = {".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5"}


def read_config(path: Path, kind: type[Config]) -> Config:
    """A pydantic model from a JSON file. Raises CheckpointError naming the file and the field."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: expected a folder that holds {path.name}")
    with named_file(path):
        text = path.read_text(encoding="utf-8")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise CheckpointError(f"{path}: {field}: {first['msg']}") from None


def load_strictly(module: nn.Module, path: Path, *, keep_dtypes: bool = False) -> None:
    """`fill_strictly` from a safetensors file."""
    _check_whole(path)
    with named_file(path):
        tensors = load_file(path)
    fill_strictly(module, tensors, path, keep_dtypes=keep_dtypes)


def fill_strictly(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, *, keep_dtypes: bool = False) -> None:
    """Fill a module with tensors that come from `path`, in its own dtypes or, if they are kept, in theirs.

    Raises CheckpointError naming a missing, extra or misshapen tensor.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    both = sorted(expected.keys() & found.keys())
    misshapen = [(name, found[name], expected[name]) for name in both if found[name] != expected[name]]
    _refuse(path, expected.keys() - found.keys(), found.keys() - expected.keys(), misshapen)
    module.load_state_dict(tensors, assign=keep_dtypes)


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model's folder as transformers saves it: in one safetensors file, or in several with an index.

    Raises CheckpointError for a file that is missing or truncated.
    """
    index, names = folder / f"{_WEIGHTS}.index.json", [_WEIGHTS]
    if index.is_file():
        with named_file(index):
            names = sorted({Path(name).name for name in json.loads(index.read_text())["weight_map"].values()})
    tensors: dict[str, Tensor] = {}
    for path in (folder / name for name in names):
        _check_whole(path)
        with named_file(path):
            tensors |= load_file(path)
    return tensors


def rounded_bytes(weight: Tensor) -> bytes:
    """A tensor rounded to bfloat16, so that the dtype in use does not matter to a hash of it."""
    return weight.detach().to("cpu", torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes()


def weights_digest(folder: Path) -> str:
    """16 hexadecimal digits that tell the weights of one model's folder from all others.

    Raises CheckpointError for a folder without safetensors.
    """
    files, digest = sorted(folder.glob("*.safetensors")), hashlib.sha256()
    if not files:
        raise CheckpointError(f"{folder} holds no .safetensors file")
    for path in files:
        with named_file(path), path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def weights_name(name: str, folder: Path) -> str:
    """What a result calls weights: the last part of a path or all of a hub id, and their digest."""
    return f"{Path(name).resolve().name if Path(name).is_dir() else name} {weights_digest(folder)}"


def load_library_model(
    kind: Any,
    folder: Path,
    dtype: torch.dtype | Literal["auto"],
    device: torch.device | str = "cpu",
    *,
    extra_allowed: bool = False,
) -> nn.Module:
    """A model of diffusers or transformers from a folder; by themselves they fill with noise what is missing.

    `kind` is its class, or an `AutoModel` one; transformers' `auto` is the precision in which the weights are stored.
    They are read in `dtype` at once, and what is stored in it is mapped and not copied. Raises CheckpointError naming
    a missing, extra or misshapen tensor, or a file that is truncated; for weights that are no safetensors, unless they
    are diffusers' and nothing but tensors; and for a model that only code of its own could make.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing: expected a folder that holds a model")
    _refuse_code(folder)
    is_safe = any(folder.glob("*.safetensors")) or not (folder / PICKLED_WEIGHTS).is_file()
    _check_weights(folder) if is_safe else read_pickle(folder / PICKLED_WEIGHTS)
    with named_file(folder), quiet_libraries():
        model, report = kind.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=is_safe,
            trust_remote_code=False,  # nor ask whether to
            local_files_only=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
        )
    extra = [] if extra_allowed else report["unexpected_keys"]
    _refuse(folder, report["missing_keys"], extra, report["mismatched_keys"])
    return model.to(device)


def library_model_of(kind: Any, config: Any, tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype) -> Any:
    """A model of transformers, of class `kind`, from its config and tensors that come from `path`.

    Raises CheckpointError naming a missing, extra or misshapen tensor.
    """
    with named_file(path), quiet_libraries():
        model, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=dtype,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
        )
    _refuse(path, report["missing_keys"], report["unexpected_keys"], report["mismatched_keys"])
    return model


def load_tokenizer(kind: Any, folder: Path) -> Any:
    """A tokenizer of transformers from a folder, which would by itself make an empty one where there are no files.

    `kind` is its class, or `AutoTokenizer`. Raises CheckpointError for a folder without a vocabulary, MissingExtra for
    one whose vocabulary is a SentencePiece model that nothing installed can read.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing: expected a folder that holds a tokenizer")
    if not (folder / "tokenizer.json").is_file() and any(folder.glob("*.model")):
        _require_sentencepiece()
    with named_file(folder), quiet_libraries():
        tokenizer = kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    files = sorted(tokenizer.vocab_files_names.values())
    if not any((folder / name).is_file() for name in files):
        raise CheckpointError(f"{folder} holds no vocabulary: expected one of {', '.join(files)}")
    return tokenizer


def _require_sentencepiece() -> None:
    from transformers.utils import is_protobuf_available, is_sentencepiece_available

    for package, is_there in (("sentencepiece", is_sentencepiece_available), ("protobuf", is_protobuf_available)):
        if not is_there():
            raise MissingExtra(package, "sentencepiece")


def _refuse_code(folder: Path) -> None:
    """Raises CheckpointError for a model of a type that only code of its own folder could make."""
    from transformers import CONFIG_MAPPING

    path = folder / "config.json"
    if not path.is_file():
        return
    with named_file(folder):
        config = json.loads(path.read_text(encoding="utf-8"))
        asks = "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING
    if asks:
        raise CheckpointError(
            f"{folder} asks for code of its own (auto_map in config.json), and no code that comes with a model is run: "
            "use a model whose type transformers knows"
        )


def _check_weights(folder: Path) -> None:
    """Raises CheckpointError for a folder without safetensors, or with one that is not whole."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        others = [path.name for path in sorted(folder.iterdir()) if path.suffix in _OTHER_WEIGHTS]
        raise CheckpointError(
            f"{folder} holds no .safetensors file{f', only {others[0]}' if others else ''}; other formats can run code "
            "when they are opened, so they are not read: load it where you trust it, and save it anew with "
            "save_pretrained, which writes safetensors"
        )
    for path in files:
        _check_whole(path)


def read_pickle(path: Path) -> Any:
    """What `torch.save` wrote: tensors in plain containers, mapped and not copied. No code of it is run.

    Raises CheckpointError, for one that asks for code as well.
    """
    with named_file(path):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))


def _check_whole(path: Path) -> None:
    """Raises CheckpointError for a safetensors file that is not as long as its header says, or is none."""
    try:
        with safe_open(path, "pt"):
            return
    except Exception as error:  # of many kinds, one of them of its own
        raise CheckpointError(
            f"{path} cannot be loaded, it is missing, truncated or no safetensors file ({first_line(error)}): delete "
            f"{path.resolve()} and get it again, which for a hub id the same command does"
        ) from None


def _refuse(
    path: Path, missing: Iterable[str], extra: Iterable[str], misshapen: Iterable[tuple[str, Shape, Shape]]
) -> None:
    """Raises CheckpointError naming the first tensor that is wrong, if any; shapes are those found and expected."""
    complaints = [f"tensor {name} is missing" for name in sorted(missing)]
    complaints += [f"tensor {name} is not part of the model" for name in sorted(extra)]
    complaints += [
        f"tensor {name} has shape {tuple(found)}, expected {tuple(expected)}"
        for name, found, expected in sorted(misshapen)
    ]
    if complaints:
        raise CheckpointError(f"{path}: {complaints[0]}")


@contextmanager
def named_file(path: Path) -> Iterator[None]:
    """Turn whatever libraries raise about a model file or folder into one line that names it."""
    try:
        yield
    except ForejudgeError:
        raise
    except UnpicklingError:
        raise CheckpointError(
            f"{path} cannot be loaded, it asks for code to be run or is no such file: where you trust it, save its "
            "state_dict alone with torch.save, and take that"
        ) from None
    except Exception as error:  # of many kinds; tokenizers raises a bare Exception
        raise CheckpointError(
            f"{path} cannot be loaded, it is missing, truncated or of another kind ({first_line(error)})"
        ) from error


def first_line(error: Exception) -> str:
    """What an error says, short enough to be part of another line; its kind where it says nothing."""
    words = str(error).strip().splitlines() or [type(error).__name__]
    return words[0][:200]


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep diffusers and transformers from logging and drawing bars: what matters, they raise or report."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries: list[Any] = [diffusers_logging, transformers_logging]
    before = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
    for library in libraries:
        library.set_verbosity(library.CRITICAL)
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library, (verbosity, bars) in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)
            if bars:
                library.enable_progress_bar()


@contextmanager
def renamed_in_transformers() -> Iterator[None]:
    """For names that every version that we allow has, and the newest ones warn about."""
    with catch_warnings():
        simplefilter("ignore", FutureWarning)
        yield
