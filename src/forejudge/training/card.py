"""The model card of a trained verifier: what it reads, how good it is, how it was made, and under which licences."""

from collections.abc import Mapping
from typing import Any

from forejudge.generators import find_spec
from forejudge.generators.base import Generator
from forejudge.generators.spelling import split_options
from forejudge.hub import stated_licence
from forejudge.provenance import provenance
from forejudge.training.recipe import AlignRecipe, TrainingRecipe, named_model, published
from forejudge.verifiers.language_model import LanguageModelVerifier

_CARD = """---
library_name: forejudge
license: {licence}
---
# {title}

Reads {reads} of {generator} and {does}. Load it with `forejudge generate PROMPT --generator GENERATOR --verifier
FOLDER`, or `LanguageModelVerifier.from_pretrained(FOLDER)`.

## Licences
A verifier is made from a language model and from what a generator draws: the terms of both apply to it.

| made from | licence stated there |
| --- | --- |
| generator {generator} | {generator_licence} |
| language model {language_model} | {language_model_licence} |

## Figures on validation prompts
{metrics}
Temperature and bias of the probability were fitted on these candidates. Test figures are made by an evaluation, never
by training.

## Made
{made}
## Recipe
```json
{recipe}
```
"""

_ALIGNED = "puts it into words; stage 2 makes a verifier of it"
_VERIFIES = "answers whether the finished picture will fit its prompt"


def verifier_card(
    verifier: LanguageModelVerifier, generator: Generator, recipe: TrainingRecipe, metrics: Mapping[str, Any] | None
) -> str:
    """The text of README.md."""
    is_aligned = isinstance(recipe, AlignRecipe)
    spec, spoken = find_spec(generator.name), find_spec(recipe.language_model)
    generator_licence = (spec and spec.licence) or stated_licence(
        spec.weights if spec else split_options(generator.name)[0]
    )
    language_model = spoken.language_model if spoken else None
    language_model_licence = stated_licence(language_model or recipe.language_model)
    stated = {generator_licence, language_model_licence}
    return _CARD.format(
        title="An aligned connector" if is_aligned else "A verifier",
        does=_ALIGNED if is_aligned else _VERIFIES,
        reads=verifier.config.reads,
        generator=named_model(generator.name),
        language_model=named_model(recipe.language_model),
        licence=generator_licence if len(stated) == 1 and generator_licence else "other",
        generator_licence=generator_licence or "none: see where it came from",
        language_model_licence=language_model_licence or "none: see where it came from",
        metrics=_table(metrics) if metrics else "None: stage 1 is measured by its loss, in metrics.jsonl.\n",
        made=_table(provenance(generator.device) | {"generator weights": generator.fingerprint}),
        recipe=published(recipe).model_dump_json(indent=1),
    )  # fmt: skip


def _table(values: Mapping[str, Any]) -> str:
    rows = [f"| {name.replace('_', ' ')} | {_cell(value)} |\n" for name, value in values.items()]
    return "| what | |\n| --- | --- |\n" + "".join(rows)


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
