"""Model cards of the miniature's parts: how each was made, and with what."""

import json
from typing import Any

from pydantic import BaseModel

from forejudge.miniature.recipe import GeneratorRecipe, VerifierTraining

_GENERATOR = """---
library_name: diffusers
pipeline_tag: text-to-image
license: apache-2.0
---
# The miniature's generator

A SANA-Sprint of the library's own classes, only small: it draws one to four coloured shapes on 64 x 64 pixels, in one
step. It exists so that everything in forejudge runs on a laptop; it knows no other world.

How it became a one-step generator: by regression with coupled noise. What a prompt leaves open (places, sizes, colours,
background) is read off the noise, so that drawing is a function of prompt and noise which regression can learn. Where
the noise is undecided between two places it draws ghosts and doubles; those are what the verifier is for. A quarter of
each batch mixes pictures with independent noise, for more than one step. While training, a linear head drafts the
picture from block {draft_after} of {blocks}; the head is not part of the model.

Text is lower-cased, guidance is 4.5 and no instruction is put before the prompt; it was trained with just that.

## Test figures
Best-of-1 with one and more steps, by `forejudge miniature eval`; `python scripts/write_tables.py` writes them here.

<!-- table: steps -->
<!-- end of table -->
"""

_VERIFIER = """---
library_name: forejudge
license: apache-2.0
---
# The miniature's verifier after {cut} of {blocks} blocks

Reads the hidden state after {cut} blocks of the miniature's generator and answers whether the finished picture will
fit the prompt: standardised per channel, through a connector of two layers, into a small Qwen2 with a vocabulary of its
own. Connector and language model were trained together on labelled candidates, with class-weighted cross-entropy; the
labels come from the world's detector and GenEval's rules, never from test prompts. Temperature and bias are fitted on
validation prompts.

## Test figures
By `forejudge miniature eval`; for the shipped verifier `python scripts/write_tables.py` writes them here.

<!-- table: best-of-n -->
<!-- end of table -->
"""


def generator_card(recipe: GeneratorRecipe, made: dict[str, Any]) -> str:
    """The card of the generator; `made` says when, where and how long."""
    return _GENERATOR.format(draft_after=recipe.draft_after, blocks=recipe.blocks) + _sections(recipe, made)


def verifier_card(cut: int, blocks: int, recipe: VerifierTraining, made: dict[str, Any]) -> str:
    """The card of the verifier for one cut."""
    return _VERIFIER.format(cut=cut, blocks=blocks) + _sections(recipe, made)


def _sections(recipe: BaseModel, made: dict[str, Any]) -> str:
    rows = "".join(f"| {name} | {value} |\n" for name, value in made.items())
    settings = json.dumps(recipe.model_dump(), indent=1)
    return f"\n## Made\n| what | |\n| --- | --- |\n{rows}\n## Recipe\n```json\n{settings}\n```\n"
