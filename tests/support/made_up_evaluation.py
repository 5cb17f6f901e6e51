"""A made-up evaluation, without models: two verifiers, one of them calibrated."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from forejudge.candidates.evaluation_store import EvaluationSettings, EvaluationStore
from forejudge.evaluation.report import REPORT_FILE, EvaluationCosts
from forejudge.evaluation.suite import COSTS_FILE, baseline_folder, folder_report
from forejudge.files import write_text
from forejudge.profiling.figures import SearchCosts

SETTINGS = EvaluationSettings(
    generator="tiny <1>\u202e",  # as HTML, a tag; then what reverses a line
    revision="0",
    dtype="float32",
    benchmark="six prompts",
    benchmark_digest="0",
    evaluator="coin",
    verifiers={"hidden": "0", "clip": "0"},
    reads={"hidden": "prefix(2 blocks, step 0)", "clip": "image"},
    prompts=6,
    seeds=2,
    images_per_prompt=1,
    candidates=4,
    steps=1,
)
COSTS = EvaluationCosts(
    provenance={"command": "forejudge eval", "commit": "abc", "device": "paper and pencil"},
    searches={
        "hidden": SearchCosts(
            milliseconds={1: 100, 2: 110, 4: 130},
            fixed_flops=10**9,
            candidate_flops=60 * 10**9,
            scoring_bytes={1: 10**6, 8: 15 * 10**6},
        ),
        "clip": SearchCosts(
            milliseconds={1: 100, 2: 125, 4: 175},
            fixed_flops=10**9,
            candidate_flops=120 * 10**9,
            scoring_bytes={1: 10**6, 8: 29 * 10**6},
        ),
    },
    baseline_ms={"1 step": 90.0, "2 steps": 105.0},
    stage_flops={
        "encode": 10**9,
        "prefix": 50 * 10**9,
        "suffix": 30 * 10**9,
        "decode": 20 * 10**9,
        "hidden": 10**10,
        "clip": 2 * 10**10,
    },
)
_KINDS = {"single_object": ("star", "ring", "cross"), "colors": ("red star", "blue ring", "green cross")}


def fake_evaluation(path: Path) -> Path:
    """Write the folder."""
    rng = np.random.default_rng(0)
    _write(EvaluationStore(path), SETTINGS, rng)
    for name, steps in (("1 step", 1), ("2 steps", 2)):
        baseline = SETTINGS.model_copy(update={"verifiers": {}, "candidates": 1, "steps": steps})
        _write(EvaluationStore(baseline_folder(path, name)), baseline, rng)
    write_text(path / COSTS_FILE, COSTS.model_dump_json())
    report = folder_report(path, ["1 step", "2 steps"], COSTS.provenance, [1, 2, 4], None, [{"hidden": 1, "clip": 1}])
    report.write(path / REPORT_FILE)
    return path


def _write(folder: EvaluationStore, settings: EvaluationSettings, rng: np.random.Generator) -> None:
    folder.begin(settings)
    seeds, indices = range(settings.seeds), range(settings.candidates)
    for number, (tag, kind) in enumerate((tag, kind) for tag, kinds in _KINDS.items() for kind in kinds):
        include = [{"class": kind, "count": 1}]
        metadata = json.dumps({"tag": tag, "include": include, "prompt": f"a photo of a {kind}"})
        rows = [{"metadata": metadata} | _row(settings, seed, index, rng) for seed in seeds for index in indices]
        samples = [Image.new("RGB", (8, 8), (60 * index, 0, 0)) for index in indices]
        folder.write_prompt(number, metadata, rows, samples)


def _row(settings: EvaluationSettings, seed: int, index: int, rng: np.random.Generator) -> dict[str, object]:
    probability = float(rng.random())
    verdicts = {
        "hidden": {"score": float(np.log(probability / (1 - probability))), "probability": probability},
        "clip": {"score": float(rng.random()), "probability": None},
    }
    correct = bool(rng.random() < 0.5)
    return {
        "seed_index": seed,
        "seed": 0,
        "sample": f"{index:04d}.png" if seed == 0 else None,
        "image_index": 0,
        "index": index,
        "correct": correct,
        "reason": "" if correct else "nothing seen",
        "verdicts": {name: verdicts[name] for name in settings.verifiers},
    }
