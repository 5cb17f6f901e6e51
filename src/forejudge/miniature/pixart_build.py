"""The second generator built: the same training on the latents of a finished miniature, for studies of generators."""

from pathlib import Path

import torch

from forejudge.checkpoint import load_strictly, quiet_libraries
from forejudge.files import write_text
from forejudge.generators.base import OPTIONS_FILE
from forejudge.miniature.autoencoder import new_autoencoder
from forejudge.miniature.cards import pixart_card
from forejudge.miniature.generator_training import GeneratorTraining
from forejudge.miniature.pixart_generator import OPTIONS, PixArtParts, assemble
from forejudge.miniature.recipe import GeneratorRecipe, keep_recipe
from forejudge.progress import Report
from forejudge.provenance import provenance


def build_pixart(
    folder: Path, miniature: Path, recipe: GeneratorRecipe, device: torch.device, report: Report, seed: int = 0
) -> Path:
    """Train it and return its folder, `folder/generator`; checkpoints lie in `folder/work`, from which it goes on.

    `miniature` holds the generator whose autoencoder it draws with. Raises CheckpointError where that is missing,
    InvalidRequest for a folder begun with another recipe.
    """
    keep_recipe(folder, recipe)
    torch.set_flush_denormal(True)  # as the miniature's build does, and why
    autoencoder = new_autoencoder()
    load_strictly(autoencoder, miniature / "generator" / "vae" / "diffusion_pytorch_model.safetensors")
    autoencoder = autoencoder.to(device, memory_format=torch.channels_last)
    work, generator = folder / "work", folder / "generator"
    work.mkdir(exist_ok=True)
    parts, seconds = GeneratorTraining(recipe, seed, autoencoder, work, device, report).run(PixArtParts)
    with quiet_libraries():  # they warn that half precision is slow to run on a CPU; it is only stored so
        assemble(parts, autoencoder).to("cpu", torch.float16).save_pretrained(generator)
    write_text(generator / OPTIONS_FILE, OPTIONS.model_dump_json(exclude_unset=True) + "\n")
    made = {"seed": seed, "minutes of training": round(seconds / 60, 1), **provenance(device)}
    write_text(generator / "README.md", pixart_card(recipe, made))
    return generator
