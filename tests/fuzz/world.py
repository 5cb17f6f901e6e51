"""A folder with one of everything that a command reads, small, and made by the commands themselves where they can."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL.Image import Image

from forejudge.cli.progress import StageProgress
from forejudge.progress import Progress
from research.miniature.clip import caption_tokenizer, clip_image_processor, new_clip
from tests.fuzz.harness import run
from tests.support.folders import copy_folder
from tests.support.official import OFFICIAL
from tests.support.study_reports import study_report
from tests.support.tiny import save_tiny_generator, save_tiny_verifier
from tests.support.tiny_clip import save_tiny_clip
from tests.support.tiny_detector import tiny_mask2former, to_mmdetection_state_dict
from tests.support.tiny_run import save_language_model

MADE_IN = "here"  # some files record paths
TINY = ("--generator", "generator", "--verifier", "verifier", "--device", "cpu")
PROMPT = "a photo of a red circle"
EVALUATION = (*TINY, "--benchmark", "few.jsonl", "--evaluator", "tests.fuzz.world:even_sum")
COMPARED = ("--n", "1,2", "--seeds", "3", "--budget-ms", "60000")
IMPORT = ("verifier", "import", "published", "--statistics", "mean.pt", "variance.pt", "--generator", "sana")
OBSERVED = ("--generator", "generator", "--device", "cpu", "--record", "hidden:2")
LABEL = ("label", *OBSERVED, "--evaluator", "tests.fuzz.world:even_sum")
CAPTION = ("caption", *OBSERVED, "--captioner", "tests.fuzz.world:described")
CHANGES = ("steps=8", "eval_steps=2", "batch_size=8", "warmup_steps=1", "language_model=language_model")
TRAINING = (
    *("--generator", "generator", "--device", "cpu", "--reads", "hidden:2"),
    *(argument for change in CHANGES for argument in ("--set", change)),
)
ALIGN = ("train", "align", "--captions", "captions", "--validation", "held_captions", *TRAINING)
VERIFY = ("train", "verify", "--labels", "labels", "--validation", "held_labels", *TRAINING)


def even_sum(prompt: str, image: Image) -> bool:
    """Evaluate an image at random, but always alike."""
    return bool(np.asarray(image).sum() % 2)


def described(image: Image) -> str:
    """Describe an image at random, but always alike."""
    return "a red circle" if even_sum("", image) else "two blue stars above a disc"


def make_world(folder: Path) -> Path:
    """Make everything and return the folder."""
    folder.mkdir(parents=True)
    _write_texts(folder)
    _save_models(folder)
    for split, candidates in (("", "64"), ("held_", "4")):  # two blocks of rows, and one
        options = ("--prompts", f"{split}few.jsonl", "--candidates", candidates, "--out")
        _made(folder, *LABEL, *options, f"{split}labels")
        _made(folder, *CAPTION, *options, f"{split}captions")
    _made(folder, *IMPORT, "imported")
    _made(folder, *ALIGN, "--out", "aligned")
    _made(folder, *VERIFY, "--out", "trained")
    _stop_at(5, folder, *VERIFY, "--out", "run")
    _made(folder, "eval", *EVALUATION, *COMPARED, "--controls", "--record-for", "simulate", "--out", "evaluated")
    for part in ("1", "2"):
        _made(folder, "eval", *EVALUATION, *COMPARED, "--shard", f"{part}/2", "--out", f"part{part}")
    _made(folder, "generate", *TINY, "--prompts", "few.jsonl", "--n", "2", "--out", "images")
    shutil.copytree(folder / "images", folder / "scored")
    _made(folder, "geneval", "score", "scored", "--evaluator", "geneval-miniature")
    _made(folder, "generate", *TINY, "--prompts", "benches.jsonl", "--n", "1", "--out", "photos")
    return folder


def _made(folder: Path, *arguments: str) -> None:
    outcome = run(arguments, folder)
    assert outcome.verdict == "ok", (arguments, outcome)


def _stop_at(step: int, folder: Path, *arguments: str) -> None:
    """Stop a training by Ctrl-C, so that it leaves its checkpoints."""

    def interrupt(self: StageProgress, progress: Progress) -> None:
        if progress.step >= step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageProgress, "show", interrupt)
        outcome = run(arguments, folder)
    assert outcome.status == 130, outcome


def _write_texts(folder: Path) -> None:
    for name, kinds, color in (
        ("few", ("circle", "star", "ring", "cross"), "red"),
        ("held_few", ("square", "star", "ring"), "blue"),
        ("benches", ("bench", "cow"), "red"),
    ):
        _write_prompts(folder / f"{name}.jsonl", kinds, color)
    (folder / "few.txt").write_text(f"{PROMPT}\na photo of a blue star\n")
    (folder / "objects.txt").write_text("".join(f"thing{number}\n" for number in range(9)))
    study_report(**{f"hidden:{blocks}": {"reads": f"hidden:{blocks}"} for blocks in (1, 2)}).write(
        folder / "study.json"
    )


def _write_prompts(path: Path, kinds: Sequence[str], color: str) -> None:
    lines = [
        {"tag": "colors", "include": [{"class": kind, "count": 1, "color": color}], "prompt": f"a {color} {kind}"}
        for kind in kinds
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def _save_models(folder: Path) -> None:
    save_tiny_generator(folder / "generator", seed=0)
    save_tiny_verifier(folder / "verifier", folder / "generator", num_prefix_blocks=2)
    save_language_model(folder / "language_model")
    save_tiny_clip(folder / "clip")
    tokenizer = caption_tokenizer()
    for part in (new_clip(tokenizer, 32, 1), tokenizer, clip_image_processor()):
        part.save_pretrained(folder / "scoring_clip")
    for name, copied in (("published", "vhs-tiny-96"), ("sana", "sana-sprint-tiny")):
        copy_folder(OFFICIAL / copied, folder / name)
    for name in ("mean", "variance"):
        shutil.copy(OFFICIAL / "norm" / "96" / f"block_7_{name}_bf16.pt", folder / f"{name}.pt")
    weights = to_mmdetection_state_dict(tiny_mask2former(), folder / "named")
    torch.save({"state_dict": weights}, folder / "detector.pth")
    shutil.rmtree(folder / "named")
    _made(folder, "geneval", "convert-detector", "detector.pth", "detector")
