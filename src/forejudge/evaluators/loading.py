"""Evaluators and captioners by name: built-in, of a plug-in, a model, a user's function, or a command."""

import shlex
import shutil
from dataclasses import dataclass
from typing import Any

import torch

from forejudge.device import resolve_device
from forejudge.errors import InvalidRequest
from forejudge.evaluators.base import Captioner, Evaluator, FunctionCaptioner, FunctionEvaluator
from forejudge.evaluators.command import CommandEvaluator
from forejudge.files import is_dir
from forejudge.plugins import is_import_path, load_object, registered

GENEVAL = "geneval"

# Evaluators that are one model, named KIND:FOLDER -> a class with `from_pretrained(folder, device)`.
MODEL_EVALUATORS = {"vqa": "forejudge.evaluators.image_text_to_text:VqaEvaluator"}


@dataclass(frozen=True)
class GenEvalModels:
    """Folders or hub ids of the models of the evaluator `geneval`, None for the default; other models use `device`."""

    detector: str | None = None
    color_model: str | None = None
    device: str | None = None


NO_MODELS = GenEvalModels()


def load_evaluator(name: str, models: GenEvalModels = NO_MODELS) -> Evaluator:
    """Load an evaluator by its spelling.

    It is `geneval` with its models, the name of a plug-in's evaluator, KIND:FOLDER for one that is a model,
    `module:attribute` for a function or an `Evaluator` class, or a command line whose program exists. Raises
    InvalidRequest for anything else, CheckpointError for models that cannot be loaded.
    """
    if name == GENEVAL:
        return _load_geneval(models)
    if models.detector is not None or models.color_model is not None:
        raise InvalidRequest(f"a detector and a color model go with the evaluator {GENEVAL}, not with {name!r}")
    if import_path := registered(lambda plugin: plugin.evaluators).get(name):
        return _evaluator_from(load_object(import_path, "evaluator"), name)
    kind, _, folder = name.partition(":")
    if import_path := _model_evaluators().get(kind):
        if not folder:
            raise InvalidRequest(f"the evaluator {kind} needs its model: {kind}:FOLDER")
        evaluator: Evaluator = load_object(import_path, "evaluator").from_pretrained(
            folder, resolve_device(models.device)
        )
        return evaluator
    if is_import_path(name):
        return _evaluator_from(load_object(name, "evaluator"), name)
    return _load_command(name)


def load_captioner(name: str, device: torch.device, dtype: torch.dtype) -> Captioner:
    """Load a captioner: a plug-in's by name, `module:attribute`, or the model in a folder or of a hub id.

    Raises InvalidRequest for an unknown name, CheckpointError for a model that cannot be loaded.
    """
    check_captioner(name)
    import_path = registered(lambda plugin: plugin.captioners).get(name)
    if import_path or (is_import_path(name) and not is_dir(name)):
        loaded = load_object(import_path or name, "captioner")
        captioner = loaded() if isinstance(loaded, type) else FunctionCaptioner(loaded, name)
        if not isinstance(captioner, Captioner):
            raise InvalidRequest(
                f"captioner {name!r} is no Captioner: expected a class of it or a function image -> str"
            )
        return captioner
    from forejudge.evaluators.image_text_to_text import ImageTextToTextCaptioner

    return ImageTextToTextCaptioner.from_pretrained(name, device, dtype)


def check_captioner(name: str) -> None:
    """Raise InvalidRequest for a name that no captioner can have; no model is looked for."""
    known = registered(lambda plugin: plugin.captioners)
    if name not in known and not is_import_path(name) and not is_dir(name) and name.count("/") != 1:
        raise InvalidRequest(
            f"unknown captioner {name!r}: expected a folder, a hub id such as google/gemma-3-4b-it, module:function, "
            f"or one of {', '.join(known)}"
        )


def _load_geneval(models: GenEvalModels) -> Evaluator:
    if models.detector is None:
        raise InvalidRequest(
            f"the evaluator {GENEVAL} needs its detector: convert it once from mmdetection's weights with "
            "`forejudge geneval convert-detector WEIGHTS.pth FOLDER`, then give --detector FOLDER"
        )
    from forejudge.evaluators.geneval import OPENAI_CLIP, GenEvalEvaluator

    color_model = models.color_model or OPENAI_CLIP
    return GenEvalEvaluator.from_pretrained(models.detector, color_model, resolve_device(models.device))


def _evaluator_from(loaded: Any, name: str) -> Evaluator:
    evaluator = loaded() if isinstance(loaded, type) else FunctionEvaluator(loaded, name)
    if not isinstance(evaluator, Evaluator):
        raise InvalidRequest(
            f"evaluator {name!r} is no Evaluator: expected a class of it or a function (prompt, image) -> bool"
        )
    return evaluator


def _model_evaluators() -> dict[str, str]:
    return MODEL_EVALUATORS | registered(lambda plugin: plugin.model_evaluators)


def _load_command(name: str) -> Evaluator:
    command = CommandEvaluator(name)
    if not name.strip() or shutil.which(shlex.split(name)[0]) is None:
        built_in = registered(lambda plugin: plugin.evaluators)
        known = ", ".join((GENEVAL, *built_in, *(f"{kind}:FOLDER" for kind in _model_evaluators()), "module:function"))
        raise InvalidRequest(f"unknown evaluator {name!r}: expected {known} or a command that can be started here")
    return command
