"""Record the digest of the shipped generator, and checksums, beside the shipped weights; the weights are not changed.

Run it after weights were copied into src/forejudge/miniature/weights. It replaces the digest that the verifier and the
benchmarks were made with, so run it only for the generator that made them.
"""

import json
import os
from pathlib import Path

import torch

from forejudge.digests import SKIP_VARIABLE, write_checksums
from forejudge.generators import load_generator

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "src" / "forejudge" / "miniature" / "weights"


def main() -> None:
    """Replace the old digest wherever it is recorded."""
    config = json.loads((WEIGHTS / "verifier" / "verifier.json").read_text(encoding="utf-8"))
    old = config["generator_fingerprint"]
    os.environ[SKIP_VARIABLE] = "1"  # they are written below
    new = load_generator("miniature", torch.device("cpu"), torch.float32).fingerprint
    for path in [*WEIGHTS.glob("*/*.*"), *(ROOT / "benchmarks").rglob("*.json")]:
        if path.suffix in (".json", ".md") and old in (text := path.read_text(encoding="utf-8")):
            path.write_text(text.replace(old, new), encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {old} -> {new}")
    for folder in sorted(path for path in WEIGHTS.iterdir() if path.is_dir()):
        write_checksums(folder)


if __name__ == "__main__":
    main()
