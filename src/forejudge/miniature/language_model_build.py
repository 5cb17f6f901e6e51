"""A language model of the miniature pre-trained and stored, whatever its size."""

from pathlib import Path

import torch

from forejudge.files import write_text
from forejudge.library_calls import quiet_libraries
from forejudge.miniature.cards import language_model_card, made
from forejudge.miniature.language_model import (
    held_out_perplexity,
    language_model_loss,
    language_model_tokenizer,
    new_language_model,
)
from forejudge.miniature.recipe import LanguageModelRecipe
from forejudge.miniature.training_loop import train
from forejudge.progress import Report


def build_language_model(
    folder: Path, checkpoint: Path, recipe: LanguageModelRecipe, seed: int, device: torch.device, report: Report
) -> None:
    """Train it, going on from `checkpoint`, and leave it in `folder` with its tokenizer and card."""
    tokenizer = language_model_tokenizer()
    torch.manual_seed(seed)
    model = new_language_model(tokenizer, recipe.width, recipe.layers).to(device)
    loss = language_model_loss(model, tokenizer, recipe.settings.batch_size, seed + 4)
    trained, seconds = train("language model", model, loss, recipe.settings, checkpoint, report)
    # Of the weights as they are stored.
    perplexity = held_out_perplexity(trained.half().float().eval(), tokenizer, seed + 5)
    with quiet_libraries():
        trained.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    told = made(seed, seconds, device) | {"held-out perplexity per token": round(perplexity, 3)}
    write_text(folder / "README.md", language_model_card(recipe, told))
