"""The folder of a training run: what it was begun with, and what it leaves: a verifier with its figures and card."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from forejudge.checkpoint import checkpoint_errors
from forejudge.device import resolve_dtype
from forejudge.errors import InvalidRequest
from forejudge.files import write_json, write_shared_text, write_text
from forejudge.generators import find_spec
from forejudge.generators.base import Generator
from forejudge.generators.known import split_options
from forejudge.hub import card_license
from forejudge.result import provenance
from forejudge.training.config import RECIPE_FILE, AlignRecipe, TrainingRecipe, public_model_name, with_public_names
from forejudge.verifiers.language_model import LanguageModelVerifier

# FOLDED: The model card of a trained verifier: what it reads, how good it is, how it was made, and under which licenses.


_CARD = """---
library_name: forejudge
license: {license}
---
# {title}

Reads {reads} of {generator} and {does}. Load it with `forejudge generate PROMPT --generator GENERATOR --verifier
FOLDER`, or `LanguageModelVerifier.from_pretrained(FOLDER)`.

## Licenses
A verifier is made from a language model and from what a generator draws: the terms of both apply to it.

| made from | license stated there |
| --- | --- |
| generator {generator} | {generator_license} |
| language model {language_model} | {language_model_license} |

## Figures on validation prompts
{metrics}
Temperature and bias of the probability were fitted on these candidates. Test figures are made by an evaluation, never
by training.

## Made
{provenance}
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
    spec, language_model_spec = find_spec(generator.name), find_spec(recipe.language_model)
    generator_license = (spec and spec.license) or card_license(
        spec.weights if spec else split_options(generator.name)[0]
    )
    language_model = language_model_spec.language_model if language_model_spec else None
    language_model_license = card_license(language_model or recipe.language_model)
    licenses = {generator_license, language_model_license}
    return _CARD.format(
        title="An aligned connector" if is_aligned else "A verifier",
        does=_ALIGNED if is_aligned else _VERIFIES,
        reads=verifier.config.reads,
        generator=public_model_name(generator.name),
        language_model=public_model_name(recipe.language_model),
        license=generator_license if len(licenses) == 1 and generator_license else "other",
        generator_license=generator_license or "none: see where it came from",
        language_model_license=language_model_license or "none: see where it came from",
        metrics=_table(metrics) if metrics else "None: stage 1 is measured by its loss, in metrics.jsonl.\n",
        provenance=_table(provenance(generator.device) | {"generator weights": generator.fingerprint}),
        recipe=with_public_names(recipe).model_dump_json(indent=1),
    )  # fmt: skip


def _table(values: Mapping[str, Any]) -> str:
    rows = [f"| {name.replace('_', ' ')} | {_cell(value)} |\n" for name, value in values.items()]
    return "| what | |\n| --- | --- |\n" + "".join(rows)


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


INPUTS_FILE = "trained_on.json"
METRICS_FILE, CARD_FILE = "metrics.json", "README.md"
CHECKPOINTS = "checkpoints"


class RunFolder:
    """A folder that one run fills. The card is written last, so a folder that has one is finished."""

    def __init__(self, folder: Path, generator: Generator) -> None:
        self.folder, self.generator = folder, generator

    def begin(self, recipe: TrainingRecipe, trained_on: Mapping[str, str | None]) -> bool:
        """Leave recipe and digests of what it is trained on in the folder; whether the run is finished already.

        Raises InvalidRequest where the folder holds a run of another recipe or on other data, naming both values.
        """
        self.check(recipe, trained_on)
        for name, current in self._run_files(recipe, trained_on).items():
            write_shared_text(self.folder / name, json.dumps(current, indent=2) + "\n")
        is_finished = (self.folder / CARD_FILE).exists()
        if is_finished:
            self._drop_checkpoints()  # of a run that was killed just before it did
        return is_finished

    def check(self, recipe: TrainingRecipe, trained_on: Mapping[str, str | None]) -> None:
        """Raises as `begin`, and leaves nothing in the folder."""
        for name, current in self._run_files(recipe, trained_on).items():
            path = self.folder / name
            with checkpoint_errors(path):
                stored = json.loads(path.read_text()) if path.exists() else current
            for field in [*current, *stored]:
                if stored.get(field) != current.get(field):
                    raise InvalidRequest(
                        f"{self.folder} was begun with {field} = {stored.get(field)}, this run has "
                        f"{current.get(field)}: choose another --out, or the same to go on with it"
                    )

    def _run_files(self, recipe: TrainingRecipe, trained_on: Mapping[str, str | None]) -> dict[str, Mapping[str, Any]]:
        inputs = {"generator": self.generator.fingerprint, **trained_on}
        return {RECIPE_FILE: with_public_names(recipe).model_dump(mode="json"), INPUTS_FILE: inputs}

    @staticmethod
    def dtype(recipe: TrainingRecipe) -> torch.dtype:
        """In which the weights are stored."""
        return resolve_dtype(recipe.save_dtype)

    def write(
        self, verifier: LanguageModelVerifier, recipe: TrainingRecipe, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Store the verifier, its figures on validation prompts and its card; checkpoints are of no more use then."""
        verifier.model.to(self.dtype(recipe))
        verifier.save_pretrained(self.folder)
        if metrics is not None:
            write_json(self.folder / METRICS_FILE, metrics)
        write_text(self.folder / CARD_FILE, verifier_card(verifier, self.generator, recipe, metrics))
        self._drop_checkpoints()

    def _drop_checkpoints(self) -> None:
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)
