"""Write the tables of the documents from the files under benchmarks/: `python scripts/write_tables.py`."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "benchmarks" / "miniature.json"
WEIGHTS = ROOT / "src" / "forejudge" / "miniature" / "weights"
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "experiments.md",
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
    closed = next(value for name, value in shipped.items() if name.startswith("distance_closed"))
    return (
        f"{figures['test_cases']} test cases ({figures['distinct_prompts']} prompts), {figures['seeds']} seeds, right "
        f"in per cent, 95 % intervals over prompts; verdicts after {shipped['num_prefix_blocks']} of "
        f"{figures['num_blocks']} blocks. Of the distance from one candidate to a perfect judge's Best-of-8 the "
        f"verifier closes {percent(closed)} %.\n\n" + table(header, rows)
    )


def cuts(figures: Figures) -> str:
    """The verifiers of all cuts beside each other."""
    rows = [
        [
            str(verifier["num_prefix_blocks"]) + (" (shipped)" if name == "shipped" else ""),
            next(percent(value) for key, value in verifier.items() if key.startswith("distance_closed")),
            percent(verifier["pair_accuracy"]),
            f"{verifier['auroc']:.3f}",
            f"{verifier['expected_calibration_error']:.3f}",
        ]
        for name, verifier in figures["verifiers"].items()
    ]
    return table(["blocks run", "distance closed, %", "pair accuracy, %", "AUROC", "calibration error"], rows)


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


TABLES: dict[str, Callable[[Figures], str]] = {"best-of-n": best_of_n, "cuts": cuts, "steps": steps}


def with_tables(document: str, figures: Figures) -> str:
    """The document with the text between its table marks written anew."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{TABLES[match[2]](figures)}\n<!-- end of table -->"

    return re.sub(r"(<!-- table: ([\w-]+) -->).*?<!-- end of table -->", fill, document, flags=re.DOTALL)


if __name__ == "__main__":
    figures = json.loads(FIGURES.read_text())
    for path in DOCUMENTS:
        path.write_text(with_tables(path.read_text(), figures))
