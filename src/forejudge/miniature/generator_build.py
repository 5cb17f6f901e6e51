"""A trained generator stored, and a further one built on the latents of a finished miniature, for studies."""

from pathlib import Path

import torch
from diffusers import AutoencoderDC

from forejudge.checkpoint import load_strictly, quiet_libraries
from forejudge.files import write_text
from forejudge.generators.base import OPTIONS_FILE
from forejudge.generators.sana_sprint import SanaSprintOptions
from forejudge.miniature.autoencoder import new_autoencoder
from forejudge.miniature.cards import generator_card, made
from forejudge.miniature.generator import GeneratorParts, assemble
from forejudge.miniature.generator_training import GeneratorTraining
from forejudge.miniature.recipe import GeneratorRecipe, keep_recipe
from forejudge.progress import Report

_CARD_FILE = "README.md"  # written last


def store_generator(folder: Path, parts: GeneratorParts, autoencoder: AutoencoderDC, card: str) -> None:
    """As plain diffusers loads it, in half precision."""
    with quiet_libraries():  # they warn that half precision is slow to run on a CPU; it is only stored so
        assemble(parts, autoencoder).to("cpu", torch.float16).save_pretrained(folder)
    options = SanaSprintOptions(complex_human_instruction=None, intermediate_timesteps=None)
    write_text(folder / OPTIONS_FILE, options.model_dump_json(exclude_unset=True) + "\n")
    write_text(folder / _CARD_FILE, card)


def build_sana(
    folder: Path, miniature: Path, recipe: GeneratorRecipe, device: torch.device, report: Report, seed: int = 0
) -> Path:
    """Train a SANA-Sprint as the miniature's is trained and return its folder, `folder/generator`.

    `miniature` is a finished build, whose autoencoder it draws with. Checkpoints lie in `folder/work`, from which it
    goes on; a finished one is left as it is. Raises CheckpointError where the autoencoder is missing, InvalidRequest
    for a folder begun with another recipe.
    """
    keep_recipe(folder, recipe)
    generator, work = folder / "generator", folder / "work"
    if (generator / _CARD_FILE).exists():
        return generator
    torch.set_flush_denormal(True)  # as the miniature's build does, and why
    autoencoder = autoencoder_in(miniature / "generator" / "vae").to(device, memory_format=torch.channels_last)
    work.mkdir(exist_ok=True)
    parts, seconds = GeneratorTraining(recipe, seed, autoencoder, work, device, report).run(GeneratorParts)
    store_generator(generator, parts, autoencoder, generator_card(recipe, made(seed, seconds, device)))
    return generator


def autoencoder_in(folder: Path) -> AutoencoderDC:
    """The trained autoencoder, in single precision. Raises CheckpointError."""
    autoencoder = new_autoencoder()  # from_pretrained would note the folder's path in the config
    load_strictly(autoencoder, folder / "diffusion_pytorch_model.safetensors")
    return autoencoder
