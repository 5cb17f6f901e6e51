"""Model cards of the miniature's parts: training, data and provenance."""

import json
from typing import Any

import torch
from pydantic import BaseModel

from forejudge.result import provenance
from research.miniature.recipe import (
    ClassifierRecipe,
    ClipRecipe,
    GeneratorRecipe,
    LanguageModelRecipe,
    TinyDecoderRecipe,
)

_GENERATOR = """---
library_name: diffusers
pipeline_tag: text-to-image
license: apache-2.0
---
# The miniature's generator

A SANA-Sprint of the library's own classes, but small: it generates one to four colored shapes on 64 x 64 pixels, in one
step. It exists so that everything in forejudge runs on a laptop; it knows no other world.

It became a one-step generator by regression with coupled noise. Choices that a prompt leaves open (places, sizes,
colors, background) are functions of the noise, so that the image is a function of prompt and noise which regression can
learn. Where the noise is undecided between two places it generates ghosts and doubles; those are what the verifier is
for. A quarter of each batch mixes images with independent noise, for more than one step. {shallow} blocks were trained
first, then all {blocks}; since then the output layer also applies after the first {shallow} and must predict the same,
so that these decide on the image.

It was trained with lower-cased text, guidance 4.5 and no instruction before the prompt.

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

A PixArt-alpha of the library's own classes, but small: it generates the same world as the miniature's generator, in
one step as DMD takes it, with a transformer and a text encoder of other kinds. It exists for studies of transfer from
one generator to another.

It was trained as the first one was: by regression with coupled noise, {shallow} blocks first, then all {blocks}, with
the output layer read after the first {shallow} as well. It has learned only the one step that starts at timestep
200 (`timesteps=[200], guidance_scale=1` of the pipeline's own call). Its autoencoder is the first generator's.
"""

_LANGUAGE_MODEL = """---
library_name: transformers
pipeline_tag: text-generation
license: apache-2.0
---
# The miniature's language model

A small Qwen2 with a vocabulary of its own, pre-trained on texts of the miniature world: scenes in words, one scene
twice in different words, and questions about scenes, never an answer to one and never an image. It stands in for
Qwen2.5-0.5B as the base of the verifier, so that alignment starts from a model that can speak. Perplexity is measured
on texts about scenes of validation prompts.
"""

_CLIP = """---
library_name: transformers
pipeline_tag: zero-shot-image-classification
license: apache-2.0
---
# The miniature's CLIP

A small CLIP of the library's own class, trained on clean images of the miniature world and their captions. Its vision
tower encodes finished images for the baseline MLLM w/ CLIP, both towers together are CLIPScore. It was trained on no
generated image and no label.
"""

_CLASSIFIER = """---
library_name: transformers
pipeline_tag: image-classification
license: apache-2.0
---
# The miniature's classifier

A small ResNet that classifies the object in each quadrant of an image. As `--evaluator classifier-miniature:FOLDER` it
evaluates images beside the detector by GenEval's rules: an evaluator that no verifier was trained on. It was trained on
rendered scenes, blurred, noisy, off in color and with ghosts among them, and on neither generated images nor the
detector's answers. It finds at most one object in a quadrant.
"""

_TINY_DECODER = """---
library_name: diffusers
license: apache-2.0
---
# The miniature's tiny decoder

A small AutoencoderTiny of the library's own class whose decoder was distilled from that of the miniature's autoencoder,
on latents of training candidates. With it the baseline MLLM w/ CLIP reads a preview of each candidate, and only the
winner is decoded in full. Its encoder is not trained: do not encode with it.
"""


def training_provenance(seed: int, seconds: float, device: torch.device) -> dict[str, Any]:
    """Return the facts of every card: seed, minutes, machine and versions."""
    return {"seed": seed, "minutes of training": round(seconds / 60, 1), **provenance(device)}


def generator_card(recipe: GeneratorRecipe, training_provenance: dict[str, Any]) -> str:
    """Return the card of the generator."""
    return _GENERATOR.format(shallow=recipe.shallow_blocks, blocks=recipe.blocks) + _sections(
        recipe, training_provenance
    )


def pixart_card(recipe: GeneratorRecipe, training_provenance: dict[str, Any]) -> str:
    """Return the card of the second generator."""
    return _PIXART.format(shallow=recipe.shallow_blocks, blocks=recipe.blocks) + _sections(recipe, training_provenance)


def language_model_card(recipe: LanguageModelRecipe, training_provenance: dict[str, Any]) -> str:
    """Return the card of the language model; `training_provenance` includes its held-out perplexity."""
    return _LANGUAGE_MODEL + _sections(recipe, training_provenance)


def clip_card(recipe: ClipRecipe, training_provenance: dict[str, Any]) -> str:
    """Return the card of CLIP; `training_provenance` includes its retrieval accuracy."""
    return _CLIP + _sections(recipe, training_provenance)


def classifier_card(recipe: ClassifierRecipe, training_provenance: dict[str, Any]) -> str:
    """Return the card of the classifier; `training_provenance` includes its accuracy on quadrants."""
    return _CLASSIFIER + _sections(recipe, training_provenance)


def tiny_decoder_card(recipe: TinyDecoderRecipe, training_provenance: dict[str, Any]) -> str:
    """Return the card of the tiny decoder; `training_provenance` includes its figures on held-out candidates."""
    return _TINY_DECODER + _sections(recipe, training_provenance)


def with_test_figures(card: str) -> str:
    """Return a verifier's card with the place where its test figures are written."""
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
