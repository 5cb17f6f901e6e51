"""A trained generator stored, and a further one built on the latents of a finished miniature, for studies."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC

from forejudge.checkpoint import load_strictly
from forejudge.files import write_text
from forejudge.generators.base import OPTIONS_FILE, Options
from forejudge.generators.sana_sprint import SanaSprintOptions
from forejudge.library_calls import quiet_libraries
from forejudge.miniature import generator, pixart_generator
from forejudge.miniature.autoencoder import new_autoencoder
from forejudge.miniature.cards import generator_card, made, pixart_card
from forejudge.miniature.generator_training import GeneratorTraining
from forejudge.miniature.one_step import OneStepParts
from forejudge.miniature.recipe import GeneratorRecipe, keep_recipe
from forejudge.progress import Report

_CARD_FILE = "README.md"  # written last


@dataclass(frozen=True)
class GeneratorKind:
    """An architecture in small: its parts from blocks, width and the blocks that decide; its pipeline and its card.

    `assemble` takes trained parts and an autoencoder.
    """

    new_parts: Callable[[int, int, int], OneStepParts]
    assemble: Callable[[Any, AutoencoderDC], Any]
    options: Options
    card: Callable[[GeneratorRecipe, dict[str, Any]], str]


SANA_SPRINT = GeneratorKind(
    generator.GeneratorParts,
    generator.assemble,
    SanaSprintOptions(complex_human_instruction=None, intermediate_timesteps=None),
    generator_card,
)
PIXART = GeneratorKind(pixart_generator.PixArtParts, pixart_generator.assemble, pixart_generator.OPTIONS, pixart_card)


def store_generator(folder: Path, kind: GeneratorKind, parts: Any, autoencoder: AutoencoderDC, card: str) -> None:
    """As plain diffusers loads it, in half precision."""
    with quiet_libraries():  # they warn that half precision is slow to run on a CPU; it is only stored so
        kind.assemble(parts, autoencoder).to("cpu", torch.float16).save_pretrained(folder)
    write_text(folder / OPTIONS_FILE, kind.options.model_dump_json(exclude_unset=True) + "\n")
    write_text(folder / _CARD_FILE, card)


def build_generator(
    kind: GeneratorKind,
    folder: Path,
    miniature: Path,
    recipe: GeneratorRecipe,
    device: torch.device,
    report: Report,
    seed: int = 0,
) -> Path:
    """Train one as the miniature's is trained and return its folder, `folder/generator`.

    `miniature` is a finished build, whose autoencoder it draws with. Checkpoints lie in `folder/work`, from which it
    goes on; a finished one is left as it is. Raises CheckpointError where the autoencoder is missing, InvalidRequest
    for a folder begun with another recipe.
    """
    keep_recipe(folder, recipe)
    built, work = folder / "generator", folder / "work"
    if (built / _CARD_FILE).exists():
        return built
    autoencoder = autoencoder_in(miniature / "generator" / "vae").to(device, memory_format=torch.channels_last)
    work.mkdir(exist_ok=True)
    training = GeneratorTraining(recipe, seed, autoencoder, work, device, report)
    parts, seconds = training.run(kind.new_parts)
    store_generator(built, kind, parts, autoencoder, kind.card(recipe, made(seed, seconds, device)))
    return built


def autoencoder_in(folder: Path) -> AutoencoderDC:
    """The trained autoencoder, in single precision. Raises CheckpointError."""
    autoencoder = new_autoencoder()  # from_pretrained would note the folder's path in the config
    load_strictly(autoencoder, folder / "diffusion_pytorch_model.safetensors")
    return autoencoder
