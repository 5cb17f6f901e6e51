"""Load models and tokenizers of transformers and diffusers strictly: no remote code, no missing tensor."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from forejudge.checkpoint import (
    check_loading_info,
    check_safetensors,
    checkpoint_errors,
    first_line,
    quiet_libraries,
    read_pickle,
)
from forejudge.errors import CheckpointError, MissingExtra
from forejudge.files import is_dir, is_file

PICKLED_WEIGHTS = "diffusion_pytorch_model.bin"  # of diffusers; opened with weights_only=True
_MESSAGE = "\u241f"  # stands in for a message while a chat template is rendered
_UNSAFE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5"}


def load_library_model(
    pretrained_class: Any,
    folder: Path,
    dtype: torch.dtype | Literal["auto"],
    device: torch.device | str = "cpu",
    *,
    allow_unexpected_keys: bool = False,
) -> nn.Module:
    """Load a model of diffusers or transformers, which by themselves would fill missing tensors with noise.

    `pretrained_class` is its class or an `AutoModel`; with transformers a `dtype` of "auto" keeps the stored one.
    Weights already stored in `dtype` are memory-mapped, not copied. A variant, such as fp16, is loaded if a folder
    holds nothing else. Raises CheckpointError for a missing, extra or
    misshapen tensor, a truncated file, weights other than safetensors (except PICKLED_WEIGHTS of diffusers, if they
    hold tensors only), and a model that needs code of its own.
    """
    if not is_dir(folder):
        raise CheckpointError(f"{folder} is missing: expected the folder of a model")
    _reject_remote_code(folder)
    is_safe = not _is_pickled(pretrained_class, folder)
    _check_weights(folder) if is_safe else read_pickle(folder / PICKLED_WEIGHTS)
    with checkpoint_errors(folder), quiet_libraries():
        model, loading_info = pretrained_class.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=is_safe,
            variant=only_variant(folder) if is_safe else None,
            trust_remote_code=False,  # None would ask
            local_files_only=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
        )
    unexpected_keys = [] if allow_unexpected_keys else loading_info["unexpected_keys"]
    check_loading_info(
        folder,
        loading_info["missing_keys"],
        unexpected_keys,
        loading_info["mismatched_keys"],
        "; expected weights and config.json of one model: get both again",
    )
    return model.to(device)


def new_library_model(pretrained_class: Any, folder: Path) -> nn.Module:
    """Build a model of diffusers or transformers on the meta device from its config alone. Raises CheckpointError."""
    from diffusers import ModelMixin

    with checkpoint_errors(folder), quiet_libraries(), torch.device("meta"):
        if issubclass(pretrained_class, ModelMixin):
            return pretrained_class.from_config(pretrained_class.load_config(folder, local_files_only=True))
        return pretrained_class(pretrained_class.config_class.from_pretrained(folder, local_files_only=True))


def library_model_from_tensors(
    pretrained_class: Any, config: Any, tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype
) -> Any:
    """Build a model of transformers, of class `pretrained_class`, from its config and tensors read from `path`.

    Raises CheckpointError naming a missing, extra or misshapen tensor.
    """
    with checkpoint_errors(path), quiet_libraries():
        model, loading_info = pretrained_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=dtype,
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
        )
    check_loading_info(
        path, loading_info["missing_keys"], loading_info["unexpected_keys"], loading_info["mismatched_keys"]
    )
    return model


def load_tokenizer(pretrained_class: Any, folder: Path) -> Any:
    """Load a tokenizer of transformers, which by itself would make an empty one from a folder without files.

    `pretrained_class` is its class or `AutoTokenizer`. Raises CheckpointError for a folder without a vocabulary,
    MissingExtra for a SentencePiece vocabulary without the packages that read it.
    """
    if not is_dir(folder):
        raise CheckpointError(f"{folder} is missing: expected the folder of a tokenizer")
    if not is_file(folder / "tokenizer.json") and any(folder.glob("*.model")):
        _require_sentencepiece()
    with checkpoint_errors(folder), quiet_libraries():
        tokenizer = pretrained_class.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    files = sorted(tokenizer.vocab_files_names.values())
    if not any(is_file(folder / name) for name in files):
        raise CheckpointError(f"{folder} holds no vocabulary: expected one of {', '.join(files)}")
    if not isinstance(limit := tokenizer.model_max_length, int | float) or limit <= 0:
        raise CheckpointError(
            f"{folder / 'tokenizer_config.json'}: model_max_length = {limit!r}: expected a number of tokens; "
            "correct it, or leave it out"
        )
    return tokenizer


def check_vocabulary(tokenizer: Any, model: Any) -> None:
    """Raise CheckpointError for a tokenizer with a token id that a model of transformers does not embed."""
    largest, rows = max(tokenizer.get_vocab().values(), default=-1), len(model.get_input_embeddings().weight)
    if largest >= rows:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: the tokenizer has token ids up to {largest}, but {type(model).__name__} embeds "
            f"{rows} tokens: expected the tokenizer that it was trained with"
        )


def check_chat_template(tokenizer: Any, **options: Any) -> None:
    """Raise CheckpointError for a chat template that is missing, fails, or does not repeat a message once."""
    message, problem = [{"role": "user", "content": _MESSAGE}], "it repeats a message {} times"
    try:
        rendered = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, **options)
    except Exception as error:  # of jinja2 or transformers
        problem, rendered = first_line(error), ""
    if (count := rendered.count(_MESSAGE)) != 1:
        raise CheckpointError(
            f"{tokenizer.name_or_path}: the tokenizer's chat template (chat_template.jinja) is missing or does not "
            f"repeat the message once ({problem.format(count)}): get it again, or use a model with a chat template"
        )


def only_variant(folder: Path) -> str | None:
    """Return the variant of weights, such as fp16, that a folder holds instead of the weights themselves.

    Raises CheckpointError for several.
    """
    # model.fp16.safetensors, model.fp16-00001-of-00002.safetensors
    variants = {path.stem.partition(".")[2].partition("-")[0] for path in folder.glob("*.safetensors")}
    if len(variants) > 1 and "" not in variants:
        raise CheckpointError(
            f"{folder} holds its weights only as the variants {', '.join(sorted(variants))}: keep the files of one"
        )
    return None if "" in variants or not variants else variants.pop()


def _require_sentencepiece() -> None:
    from transformers.utils import is_protobuf_available, is_sentencepiece_available

    for package, is_available in (("sentencepiece", is_sentencepiece_available), ("protobuf", is_protobuf_available)):
        if not is_available():
            raise MissingExtra(package, "sentencepiece")


def _reject_remote_code(folder: Path) -> None:
    """Raise CheckpointError for a model type that only code in its own folder defines."""
    from transformers import CONFIG_MAPPING

    path = folder / "config.json"
    if not is_file(path):
        return
    with checkpoint_errors(folder):
        config = json.loads(path.read_text(encoding="utf-8"))
        needs_remote_code = "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING
    if needs_remote_code:
        raise CheckpointError(
            f"{folder} asks for code of its own (auto_map in config.json), and code that comes with a model is never "
            "run: use a model whose type transformers knows"
        )


def _is_pickled(pretrained_class: Any, folder: Path) -> bool:
    """Tell whether a model of diffusers has its weights in PICKLED_WEIGHTS alone, with no other file to open."""
    if any(folder.glob("*.safetensors")) or [path.name for path in folder.glob("*.bin*")] != [PICKLED_WEIGHTS]:
        return False
    from diffusers import ModelMixin

    return isinstance(pretrained_class, type) and issubclass(pretrained_class, ModelMixin)


def _check_weights(folder: Path) -> None:
    """Raise CheckpointError for a folder without safetensors, or with a truncated one."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        unsafe_files = [path.name for path in sorted(folder.iterdir()) if path.suffix in _UNSAFE_SUFFIXES]
        found = f", only {unsafe_files[0]}" if unsafe_files else ""
        raise CheckpointError(
            f"{folder} holds no .safetensors file{found}; other formats can run code when they are opened, so they are "
            "not read: if you trust the model, load it elsewhere and save it again with save_pretrained"
        )
    for path in files:
        check_safetensors(path)
