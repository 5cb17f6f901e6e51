"""The miniature's plug-in: one table with the names that it adds to forejudge, light to import."""

from pathlib import Path
from typing import Any

from forejudge.plugins import Plugin

QUESTION = "<image> does this show {prompt}? answer yes or no"
INSTRUCTION = "<image> what does this show?"

_WEIGHTS = Path(__file__).parent / "weights"
_COLLECTION: dict[str, Any] = {"generator": "miniature", "candidates": 8, "record": "hidden:12"}
_TRAINING: dict[str, Any] = {
    "reads": "hidden:12",
    "language_model": "miniature",
    "batch_size": 64,
    "spatial_merge_size": 4,
    "adam_beta2": 0.99,
    "precision": "auto",
    "save_dtype": "float16",
}
_ALIGN: dict[str, Any] = {
    "instruction": INSTRUCTION,
    "steps": 400,
    "learning_rate": 4e-3,
    "warmup_steps": 20,
    "eval_steps": 200,
}
_VERIFY: dict[str, Any] = {
    "question": QUESTION,
    "steps": 2800,
    "learning_rate": 1.5e-3,
    "warmup_steps": 50,
    "weight_decay": 0.05,
    "eval_steps": 400,
    "loss": {"kind": "class-weighted", "pairwise": 1.0},
}
_CROSS_ATTENTION: dict[str, Any] = {"cross_attention": {}, "spatial_merge_size": 1, "steps": 5600, "eval_steps": 700}
_RECIPE: dict[str, Any] = {
    "prompts": 8000,
    "label": {**_COLLECTION, "evaluator": "geneval-miniature"},
    "caption": {**_COLLECTION, "captioner": "miniature"},
    "align": {**_TRAINING, **_ALIGN},
    "verify": {**_TRAINING, **_VERIFY},
}

PLUGIN = Plugin(
    generators={
        "miniature": {
            "pipeline": str(_WEIGHTS / "generator"),
            "verifier": str(_WEIGHTS / "verifier"),
            "language_model": str(_WEIGHTS / "language_model"),
            "vocabulary": "forejudge.miniature.prompts:vocabulary",
            "description": "a small SANA-Sprint that generates colored shapes at 64 px; ships with forejudge",
        }
    },
    verifiers={"miniature-cross-attention": str(_WEIGHTS / "cross_attention")},
    recipes={
        "miniature": _RECIPE,
        "miniature-cross-attention": {**_RECIPE, "verify": {**_RECIPE["verify"], **_CROSS_ATTENTION}},
    },
    prompt_sets={"miniature": "forejudge.miniature.prompts:sample_prompt_lines"},
    evaluators={"geneval-miniature": "forejudge.miniature.evaluator:MiniatureEvaluator"},
    model_evaluators={"classifier-miniature": "forejudge.miniature.classifier:ClassifierEvaluator"},
    captioners={"miniature": "forejudge.miniature.captioner:MiniatureCaptioner"},
    benchmarks={
        "geneval-miniature": "forejudge.miniature.evaluator:miniature_benchmark",
        "geneval-miniature-validation": "forejudge.miniature.evaluator:validation_benchmark",
    },
)
