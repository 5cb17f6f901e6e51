"""Untrained models of the miniature's own classes, small enough to be made in a second."""

from pathlib import Path

import torch

from forejudge.generators import load_generator
from forejudge.generators.base import OPTIONS_FILE
from forejudge.generators.sana_sprint import SanaSprintOptions
from forejudge.miniature.plugin import QUESTION as MINIATURE_QUESTION
from forejudge.verifiers.config import Calibration
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.language_model import LanguageModelVerifier, LanguageModelVerifierConfig, YesNoModel
from research.miniature.autoencoder import new_autoencoder
from research.miniature.generator import GeneratorParts, assemble
from research.miniature.language_model import language_model_tokenizer, new_language_model

CPU = torch.device("cpu")


def save_tiny_generator(folder: Path, seed: int, blocks: int = 4, width: int = 64) -> Path:
    """Write a pipeline folder and return it."""
    torch.manual_seed(seed)
    parts = GeneratorParts(blocks, width, early_exit_blocks=blocks)
    assemble(parts, new_autoencoder()).save_pretrained(folder)
    options = SanaSprintOptions(complex_human_instruction=None, intermediate_timesteps=None)
    (folder / OPTIONS_FILE).write_text(options.model_dump_json(exclude_unset=True))
    return folder


def save_tiny_verifier(folder: Path, generator: Path, num_prefix_blocks: int, merge_size: int = 1) -> Path:
    """Write a verifier folder for a generator and return it."""
    torch.manual_seed(1)
    generator_model = load_generator(str(generator), CPU, torch.float32)
    tokenizer = language_model_tokenizer()
    language_model = new_language_model(tokenizer, 64, 1)
    config = LanguageModelVerifierConfig(
        generator=generator_model.architecture,
        generator_fingerprint=generator_model.fingerprint,
        reads=f"hidden:{num_prefix_blocks}",
        question=MINIATURE_QUESTION,
        spatial_merge_size=merge_size,
        calibration=Calibration(temperature=0.05, bias=0.0),
    )
    model = YesNoModel(Connector(generator_model.architecture.width, 64, merge_size), language_model)
    LanguageModelVerifier("tiny", config, model, tokenizer).save_pretrained(folder)
    return folder
