"""The folder of a training run: what it was begun with, and what it leaves: a verifier with its figures and card."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from forejudge.device import resolve_dtype
from forejudge.errors import InvalidRequest
from forejudge.files import write_json, write_shared_text, write_text
from forejudge.generators.base import Generator
from forejudge.library_calls import named_file
from forejudge.training.card import verifier_card
from forejudge.training.recipe import RECIPE_FILE, TrainingRecipe, published
from forejudge.verifiers.language_model import LanguageModelVerifier

INPUTS_FILE = "trained_on.json"
FIGURES_FILE, CARD_FILE = "metrics.json", "README.md"
CHECKPOINTS = "checkpoints"


class Output:
    """A folder that one run fills. The card is written last, so a folder that has one is finished."""

    def __init__(self, folder: Path, generator: Generator) -> None:
        self.folder, self.generator = folder, generator

    def begin(self, recipe: TrainingRecipe, trained_on: Mapping[str, str | None]) -> bool:
        """Leave recipe and digests of what it is trained on in the folder; whether the run is finished already.

        Raises InvalidRequest where the folder holds a run of another recipe or on other data, naming both values.
        """
        self.check(recipe, trained_on)
        for name, present in self._kept(recipe, trained_on).items():
            write_shared_text(self.folder / name, json.dumps(present, indent=2) + "\n")
        is_finished = (self.folder / CARD_FILE).exists()
        if is_finished:
            self._drop_checkpoints()  # of a run that was killed just before it did
        return is_finished

    def check(self, recipe: TrainingRecipe, trained_on: Mapping[str, str | None]) -> None:
        """Raises as `begin`, and leaves nothing in the folder."""
        for name, present in self._kept(recipe, trained_on).items():
            path = self.folder / name
            with named_file(path):
                begun_with = json.loads(path.read_text()) if path.exists() else present
            for field in [*present, *begun_with]:
                if begun_with.get(field) != present.get(field):
                    raise InvalidRequest(
                        f"{self.folder} was begun with {field} = {begun_with.get(field)}, this run has "
                        f"{present.get(field)}: choose another --out, or the same to go on with it"
                    )

    def _kept(self, recipe: TrainingRecipe, trained_on: Mapping[str, str | None]) -> dict[str, Mapping[str, Any]]:
        inputs = {"generator": self.generator.fingerprint, **trained_on}
        return {RECIPE_FILE: published(recipe).model_dump(mode="json"), INPUTS_FILE: inputs}

    @staticmethod
    def dtype(recipe: TrainingRecipe) -> torch.dtype:
        """In which the weights are stored."""
        return resolve_dtype(recipe.stored_in)

    def write(
        self, verifier: LanguageModelVerifier, recipe: TrainingRecipe, metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Store the verifier, its figures on validation prompts and its card; checkpoints are of no more use then."""
        verifier.model.to(self.dtype(recipe))
        verifier.save_pretrained(self.folder)
        if metrics is not None:
            write_json(self.folder / FIGURES_FILE, metrics)
        write_text(self.folder / CARD_FILE, verifier_card(verifier, self.generator, recipe, metrics))
        self._drop_checkpoints()

    def _drop_checkpoints(self) -> None:
        shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)
