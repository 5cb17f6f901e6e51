"""Model cards of the miniature's parts: how each was made, and with what."""

import json
from typing import Any

import torch
from pydantic import BaseModel

from forejudge.result import provenance
from research.miniature.recipe import ClassifierRecipe, ClipRecipe, GeneratorRecipe, LanguageModelRecipe

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
each batch mixes pictures with independent noise, for more than one step. {shallow} blocks were trained first, then all
{blocks}; since then the output layer is also read after the first {shallow} and has to say the same, so that these
decide what is drawn.

Text is lower-cased, guidance is 4.5 and no instruction is put before the prompt; it was trained with just that.

## Test figures
Best-of-1 with one and more steps, by `forejudge eval`; `python scripts/write_tables.py` writes them here.

<!-- table: steps -->
<!-- end of table -->
"""

_PIXART = """---
library_name: diffusers
pipeline_tag: text-to-image
license: apache-2.0
---
# The miniature's second generator

A PixArt-alpha of the library's own classes, only small: it draws the same world as the miniature's generator, in one
step as DMD takes it, with a transformer and a text encoder of other kinds. It exists for studies of what carries over
from one generator to another.

It was trained as the first one was: by regression with coupled noise, {shallow} blocks first, then all {blocks}, with
the output layer read after the first {shallow} as well. It has learnt nothing but the one step that starts at timestep
200 (`timesteps=[200], guidance_scale=1` of the pipeline's own call). Its autoencoder is the first generator's.
"""

_LANGUAGE_MODEL = """---
library_name: transformers
pipeline_tag: text-generation
license: apache-2.0
---
# The miniature's language model

A small Qwen2 with a vocabulary of its own, pre-trained on texts of the miniature world: scenes said in words, the same
scene said twice in different words, and questions about scenes, never an answer to one and never a picture. It stands
in for Qwen2.5-0.5B: the verifier is made of it, and alignment finds a model that can already speak. Perplexity is that
of texts about scenes of validation prompts.
"""

_CLIP = """---
library_name: transformers
pipeline_tag: zero-shot-image-classification
license: apache-2.0
---
# The miniature's CLIP

A small CLIP of the library's own class, trained on clean pictures of the miniature world and their captions. Its vision
tower is what the baseline MLLM w/ CLIP reads finished pictures with, both towers together are CLIPScore. It has seen
nothing that the generator draws, and no label.
"""

_CLASSIFIER = """---
library_name: transformers
pipeline_tag: image-classification
license: apache-2.0
---
# The miniature's classifier

A small ResNet that says of each quadrant of a picture which object stands in it. It judges pictures beside the
detector, as `--evaluator classifier-miniature:FOLDER`, by GenEval's rules: a judge that no verifier was trained on. It
has learnt from rendered scenes, blurred, noisy, off in colour and with ghosts among them, and has seen neither pictures
of the generator nor the detector's answers. It sees at most one object in a quadrant.
"""


def training_provenance(seed: int, seconds: float, device: torch.device) -> dict[str, Any]:
    """When, where and how long: what every card tells."""
    return {"seed": seed, "minutes of training": round(seconds / 60, 1), **provenance(device)}


def generator_card(recipe: GeneratorRecipe, training_provenance: dict[str, Any]) -> str:
    """The card of the generator; `training_provenance` says when, where and how long."""
    return _GENERATOR.format(shallow=recipe.shallow_blocks, blocks=recipe.blocks) + _sections(
        recipe, training_provenance
    )


def pixart_card(recipe: GeneratorRecipe, training_provenance: dict[str, Any]) -> str:
    """The card of the second generator; `training_provenance` says when, where and how long."""
    return _PIXART.format(shallow=recipe.shallow_blocks, blocks=recipe.blocks) + _sections(recipe, training_provenance)


def language_model_card(recipe: LanguageModelRecipe, training_provenance: dict[str, Any]) -> str:
    """The card of the language model; `training_provenance` holds its held-out perplexity, too."""
    return _LANGUAGE_MODEL + _sections(recipe, training_provenance)


def clip_card(recipe: ClipRecipe, training_provenance: dict[str, Any]) -> str:
    """The card of CLIP; `training_provenance` holds how well it finds captions, too."""
    return _CLIP + _sections(recipe, training_provenance)


def classifier_card(recipe: ClassifierRecipe, training_provenance: dict[str, Any]) -> str:
    """The card of the classifier; `training_provenance` holds how well it reads quadrants, too."""
    return _CLASSIFIER + _sections(recipe, training_provenance)


def with_test_figures(card: str) -> str:
    """A verifier's card with the place where its test figures are written."""
    return card if _TEST_FIGURES in card else card + _TEST_FIGURES


_TEST_FIGURES = """
## Test figures
By `forejudge eval`; for the shipped verifier `python scripts/write_tables.py` writes them here.

<!-- table: best-of-n -->
<!-- end of table -->
"""


def _sections(recipe: BaseModel, training_provenance: dict[str, Any]) -> str:
    rows = "".join(f"| {name} | {value} |\n" for name, value in training_provenance.items())
    settings = json.dumps(recipe.model_dump(), indent=1)
    return f"\n## Made\n| what | |\n| --- | --- |\n{rows}\n## Recipe\n```json\n{settings}\n```\n"
