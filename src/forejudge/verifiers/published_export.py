"""Export of a verifier to the published layout, for the code released with the paper; tensors are copied exactly."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from forejudge.checkpoint import checkpoint_errors, library_output_errors, load_tensors, quiet_libraries
from forejudge.config_files import read_config
from forejudge.device import dtype_name
from forejudge.digests import check_checksums
from forejudge.errors import InvalidRequest
from forejudge.files import write_json
from forejudge.library_models import load_tokenizer
from forejudge.verifiers import find_verifier_class
from forejudge.verifiers.config import CONFIG_FILE
from forejudge.verifiers.language_model import (
    CONNECTOR_FILE,
    LANGUAGE_MODEL,
    LanguageModelVerifier,
    LanguageModelVerifierConfig,
)
from forejudge.verifiers.published_format import (
    HIDDEN,
    PUBLISHED_CONFIG_FILE,
    Statistics,
    published_language_model_config,
    write_statistics,
)
from forejudge.verifiers.published_import import CONNECTOR_PREFIX, INPUT_EMBEDDINGS
from forejudge.verifiers.question import PUBLISHED_QUESTION

_LAYERS = "layers."
_FIRST_WEIGHT = "layers.0.weight"
_FIXED_FIELDS = {
    "model_type": "llava_qwen",
    "architectures": ["LlavaQwenForCausalLM"],
    "image_aspect_ratio": "pad",
    "flatten_vae_output": True,
    "mm_patch_merge_type": "flat",
    "mm_projector_type": "mlp2x_gelu",
    "mm_use_im_patch_token": False,
    "mm_use_im_start_end": False,
    "mm_vision_select_layer": -2,
    "swap": False,
    "tokenizer_padding_side": "right",
    "use_mm_proj": True,
}
_TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
_TRANSFORMERS_5_FIELDS = {"backend", "is_local", "local_files_only", "extra_special_tokens"}


def export_published(source: Path, folder: Path) -> None:
    """Export the verifier in the folder `source` to the existing `folder`, without its calibration and generator.

    Raises InvalidRequest for a verifier that the layout cannot hold, CheckpointError for an incomplete or changed
    folder.
    """
    config = _read_supported_config(source)
    check_checksums(source)
    with checkpoint_errors(source / LANGUAGE_MODEL):
        language_model = AutoConfig.from_pretrained(source / LANGUAGE_MODEL, local_files_only=True)
    _check_supported(config, language_model.model_type, source)
    with checkpoint_errors(source / CONNECTOR_FILE):
        connector = load_file(source / CONNECTOR_FILE)
    layers = {name: tensor for name, tensor in connector.items() if name.startswith(_LAYERS)}
    tensors = load_tensors(source / LANGUAGE_MODEL)
    tensors |= {CONNECTOR_PREFIX + name.removeprefix(_LAYERS): tensor for name, tensor in layers.items()}
    with library_output_errors(folder):
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    fields = config.published_config or published_language_model_config(language_model) | _input_fields(config, layers)
    weights = {"torch_dtype": dtype_name(layers[_FIRST_WEIGHT].dtype), "vocab_size": len(tensors[INPUT_EMBEDDINGS])}
    write_json(folder / PUBLISHED_CONFIG_FILE, fields | weights)
    if config.statistics != "none":
        statistics = Statistics(config.statistics, connector["mean_D"], connector["variance_D"])
        write_statistics(statistics, folder, _block(config))
    write_tokenizer(load_tokenizer(AutoTokenizer, source / LANGUAGE_MODEL), folder)


def _read_supported_config(source: Path) -> LanguageModelVerifierConfig:
    verifier_class = find_verifier_class(source)
    if not issubclass(verifier_class, LanguageModelVerifier):
        raise InvalidRequest(
            f"the published layout cannot hold a {verifier_class.__name__}, only one of kind language_model: use "
            f"{source} as it is"
        )
    return read_config(source / CONFIG_FILE, LanguageModelVerifierConfig)


def _check_supported(config: LanguageModelVerifierConfig, language_model: str, source: Path) -> None:
    """Raise InvalidRequest that names a feature which the layout cannot hold."""
    published = config.published_config or {}
    reads_published_clip = config.reads == "clip" and config.statistics == "none" and "mm_vision_tower" in published
    unsupported = {
        f"a language model of type {language_model}": language_model != "qwen2",
        f"a verifier that reads {config.reads}": not (config.reads.startswith(HIDDEN) or reads_published_clip),
        "a question of its own": config.question != PUBLISHED_QUESTION,
        "merged tokens": config.spatial_merge_size != 1,
        "a head": config.has_head,
        "a connector of stage 1": config.stage == "align",
    }
    for feature, is_present in unsupported.items():
        if is_present:
            raise InvalidRequest(f"the published layout cannot hold {feature}: use {source} as it is")


def _input_fields(config: LanguageModelVerifierConfig, layers: dict[str, Tensor]) -> dict[str, Any]:
    """Return the input's config.json fields for a verifier that was not imported."""
    width = layers[_FIRST_WEIGHT].shape[1]
    return _FIXED_FIELDS | {
        "hidden_dim": width,
        "mm_hidden_size": width,
        "mm_vision_tower": HIDDEN,
        "mm_vision_select_feature": f"block_{_block(config)}",
        "mm_vision_normalize": config.statistics != "none",
    }


def _block(config: LanguageModelVerifierConfig) -> int:
    return int(config.reads.partition(":")[2]) - 1


def write_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer in the format of transformers 4, which cannot read files of transformers 5.

    Write the vocabulary to separate files too, for tokenizers without the fast backend.
    """
    with checkpoint_errors(folder), quiet_libraries():
        tokenizer.save_pretrained(folder)
        tokenizer.backend_tokenizer.model.save(str(folder))
    tokenizer_config = json.loads((folder / _TOKENIZER_CONFIG_FILE).read_text(encoding="utf-8"))
    added_tokens = {str(number): token.__getstate__() for number, token in tokenizer.added_tokens_decoder.items()}
    kept_fields = {name: value for name, value in tokenizer_config.items() if name not in _TRANSFORMERS_5_FIELDS}
    extra = [str(token) for token in tokenizer_config.get("extra_special_tokens", [])]
    write_json(
        folder / _TOKENIZER_CONFIG_FILE,
        kept_fields | {"added_tokens_decoder": added_tokens, "additional_special_tokens": extra},
    )
