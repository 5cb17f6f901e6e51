"""Write the tables of the documents from the files under benchmarks/: `python scripts/write_tables.py`."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
WEIGHTS = ROOT / "src" / "forejudge" / "miniature" / "weights"
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "experiments.md",
    ROOT / "docs" / "train-a-verifier.md",
    WEIGHTS / "generator" / "README.md",
    WEIGHTS / "verifier" / "README.md",
)
TASKS = {
    "single_object": "Single",
    "two_object": "Two",
    "counting": "Counting",
    "colors": "Colors",
    "position": "Position",
    "color_attr": "Attribution",
}

Figures = dict[str, Any]


def percent(figure: dict[str, float]) -> str:
    """An estimate and its 95 % interval."""
    return f"{100 * figure['estimate']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def best_of_n(figures: Figures) -> str:
    """Overall and per task, for each N and chooser."""
    header = ["Best of", "chosen by", "overall (micro)", *TASKS.values()]
    rows = [
        [str(row["n"]), row["chosen_by"], percent(row["micro"]), *(f"{100 * row[t]['estimate']:.1f}" for t in TASKS)]
        for row in figures["best_of_n"]
        if row["n"] > 1 or row["chosen_by"] == "random"
    ]
    shipped = figures["verifiers"]["shipped"]
    return (
        f"{figures['test_cases']} test cases ({figures['distinct_prompts']} prompts), {figures['seeds']} seeds, right "
        f"in per cent, 95 % intervals over prompts; the verifier reads {shipped['reads']} of "
        f"{figures['num_blocks']} blocks. Of the distance from one candidate to a perfect judge's Best-of-8 the "
        f"verifier closes {percent(closed(shipped))} %.\n\n" + table(header, rows)
    )


def closed(verifier: Figures) -> dict[str, float]:
    """The share of the distance to a perfect judge that a verifier closes."""
    return next(value for name, value in verifier.items() if name.startswith("distance_closed"))


def verifiers(figures: Figures) -> str:
    """All verifiers of a test beside each other."""
    rows = [
        [name, verifier["reads"], *ranked(verifier), f"{100 * verifier['ties']:.1f}"]
        for name, verifier in figures["verifiers"].items()
    ]
    return table(["verifier", "reads", *RANKED, "ties for the best, %"], rows)


RANKED = ["distance closed, %", "pair accuracy, %", "AUROC", "calibration error"]


def ranked(verifier: Figures) -> list[str]:
    """Cells for the columns RANKED."""
    return [
        percent(closed(verifier)),
        percent(verifier["pair_accuracy"]),
        f"{verifier['auroc']:.3f}",
        f"{verifier['expected_calibration_error']:.3f}",
    ]


def training(figures: Figures) -> str:
    """Verifiers that differ in how they were trained."""
    rows = [
        [name, *ranked(variant), ", ".join(f"{100 * each:.1f}" for each in variant["distance_closed_of_each_seed"])]
        for name, variant in figures["variants"].items()
    ]
    return (
        f"{figures['test_cases']} test cases, {figures['test_seeds']} seed(s), Best-of-8, 95 % intervals over prompts; "
        f"{figures['training_seeds']} training seeds of {figures['steps']} steps each, all reading "
        f"{figures['reads']}.\n\n" + table(["variant", *RANKED, "distance closed by each training seed, %"], rows)
    )


def steps(figures: Figures) -> str:
    """Best-of-1 with more denoising steps."""
    rows = [
        [count, percent(row["micro"]), *(f"{100 * row[task]['estimate']:.1f}" for task in TASKS)]
        for count, row in figures["steps"].items()
    ]
    width = figures["edge_width"]["ratio"]
    return (
        f"{figures['test_cases']} test cases, one seed, right in per cent, 95 % intervals. Edges of detected objects "
        f"are {width:.2f} times as wide as rendered ones.\n\n"
        + table(["steps", "overall (micro)", *TASKS.values()], rows)
    )


# Name of a table -> how it is written, and the file of its figures under benchmarks/.
TABLES: dict[str, tuple[Callable[[Figures], str], str]] = {
    "best-of-n": (best_of_n, "miniature.json"),
    "verifiers": (verifiers, "miniature.json"),
    "steps": (steps, "miniature.json"),
    "training": (training, "miniature-training.json"),
}


def read_figures() -> dict[str, Figures]:
    """The figures of every file that a table is written from."""
    return {name: json.loads((BENCHMARKS / name).read_text()) for _, name in TABLES.values()}


def with_tables(document: str, figures: dict[str, Figures]) -> str:
    """The document with the text between its table marks written anew."""

    def fill(match: re.Match[str]) -> str:
        write, source = TABLES[match[2]]
        return f"{match[1]}\n{write(figures[source])}\n<!-- end of table -->"

    return re.sub(r"(<!-- table: ([\w-]+) -->).*?<!-- end of table -->", fill, document, flags=re.DOTALL)


if __name__ == "__main__":
    figures = read_figures()
    for path in DOCUMENTS:
        path.write_text(with_tables(path.read_text(), figures))
