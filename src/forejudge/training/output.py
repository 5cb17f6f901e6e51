"""The folder of a training run: recipe and inputs it begins with; verifier, metrics and card it ends with."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from forejudge.checkpoint import library_output_errors
from forejudge.config_files import record_config, refuse_other_config
from forejudge.device import resolve_dtype
from forejudge.digests import CHECKPOINTS
from forejudge.files import exists, write_json, write_text
from forejudge.generators import find_spec
from forejudge.generators.base import Generator
from forejudge.generators.known import split_options
from forejudge.hub import card_license, public_model_name
from forejudge.result import provenance
from forejudge.training.config import (
    INPUTS_FILE,
    RECIPE_FILE,
    AlignRecipe,
    RunInputs,
    TrainingRecipe,
    with_public_names,
)
from forejudge.training.model import check_finite, language_model_source
from forejudge.training.stage_models import TrainedVerifier

METRICS_FILE, CARD_FILE = "metrics.json", "README.md"


class RunFolder:
    """A folder that one run fills. The card is written last: a folder that has one is finished."""

    def __init__(self, folder: Path, generator: Generator) -> None:
        self.folder, self.generator = folder, generator

    def begin(self, recipe: TrainingRecipe, inputs: RunInputs) -> None:
        """Record recipe and inputs in the folder. Raises the same errors as `check`, and OutputError."""
        record_config(self.folder / RECIPE_FILE, with_public_names(recipe))
        record_config(self.folder / INPUTS_FILE, inputs)

    def finished(self, recipe: TrainingRecipe, inputs: RunInputs) -> bool:
        """Return whether the run is finished already. Raises the same errors as `check`."""
        self.check(recipe, inputs)
        is_finished = exists(self.folder / CARD_FILE)
        if is_finished:
            self._drop_checkpoints()  # left by a run that was killed between writing the card and dropping them
        return is_finished

    def check(self, recipe: TrainingRecipe, inputs: RunInputs) -> None:
        """Raise InvalidRequest where the folder was begun with another recipe or other rows, naming both values."""
        refuse_other_config(self.folder / INPUTS_FILE, inputs)
        refuse_other_config(self.folder / RECIPE_FILE, with_public_names(recipe))

    @staticmethod
    def dtype(recipe: TrainingRecipe) -> torch.dtype:
        """Return the dtype that weights are stored in."""
        return resolve_dtype(recipe.save_dtype)

    def write(
        self, verifier: TrainedVerifier, recipe: TrainingRecipe, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Store the verifier, its metrics on validation prompts and its card, then drop the checkpoints."""
        check_finite(verifier.model, self.dtype(recipe))
        verifier.model.to(self.dtype(recipe))
        with library_output_errors(self.folder):
            verifier.save_pretrained(self.folder)
        if metrics is not None:
            write_json(self.folder / METRICS_FILE, metrics)
        write_text(self.folder / CARD_FILE, verifier_card(verifier, self.generator, recipe, metrics))
        self._drop_checkpoints()

    def _drop_checkpoints(self) -> None:
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)


_CARD = """---
library_name: forejudge
license: {license}
---
# {title}

Reads {reads} of `{generator}` and {does}. Load it with `forejudge generate PROMPT --generator GENERATOR --verifier FOLDER`, or `{verifier_class}.from_pretrained(FOLDER)`.

## Licenses
A verifier is made from other models: the terms of all of them apply to it.

| made from | name | license stated there |
| --- | --- | --- |
{origins}
## Metrics on validation prompts
{metrics}
Temperature and bias of the probability were fitted on these candidates. Test metrics come from an evaluation, never from training.

## Provenance
{provenance}
## Recipe
```json
{recipe}
```
"""  # noqa: E501 - one line per paragraph

_ALIGNED = "describes it in words; stage 2 makes a verifier of it"
_VERIFIES = "answers whether the finished image will fit its prompt"
_NO_LICENSE = "none: see where it came from"


def verifier_card(
    verifier: TrainedVerifier, generator: Generator, recipe: TrainingRecipe, metrics: Mapping[str, Any] | None
) -> str:
    """Return the model card (README.md): input, licenses, metrics, provenance and recipe."""
    is_aligned = isinstance(recipe, AlignRecipe)
    origins = list(_origins(generator, recipe))
    licenses = {model_license for _, _, model_license in origins}
    return _CARD.format(
        title="An aligned connector" if is_aligned else "A verifier",
        does=_ALIGNED if is_aligned else _VERIFIES,
        reads=verifier.config.reads,
        verifier_class=type(verifier).__name__,
        generator=public_model_name(generator.name),
        license=(licenses.pop() if len(licenses) == 1 else None) or "other",
        origins="".join(
            f"| {part} | {name} | {model_license or _NO_LICENSE} |\n" for part, name, model_license in origins
        ),
        metrics=_table(metrics) if metrics else "None: stage 1 is measured by its loss, in metrics.jsonl.\n",
        provenance=_table(provenance(generator.device) | {"generator weights": generator.fingerprint}),
        recipe=with_public_names(recipe).model_dump_json(indent=1),
    )


def _origins(generator: Generator, recipe: TrainingRecipe) -> Iterator[tuple[str, str, str | None]]:
    """Yield each model that a verifier is made from: what it is, its public name and its license."""
    spec = find_spec(generator.name)
    weights = spec.weights if spec else split_options(generator.name)[0]
    yield "generator", public_model_name(generator.name), (spec and spec.license) or card_license(weights)
    if recipe.has_language_model:
        name = recipe.language_model
        yield "language model", public_model_name(name), card_license(language_model_source(recipe))


def _table(values: Mapping[str, Any]) -> str:
    rows = [f"| {name.replace('_', ' ')} | {_cell(value)} |\n" for name, value in values.items()]
    return "| | |\n| --- | --- |\n" + "".join(rows)


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
