"""Write the tables of the documents from the files under benchmarks/: `python scripts/write_tables.py`."""

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
WEIGHTS = ROOT / "src" / "forejudge" / "miniature" / "weights"
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "train-a-verifier.md",
    ROOT / "docs" / "evaluate.md",
    ROOT / "docs" / "what-we-found.md",
    ROOT / "docs" / "profile.md",
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

# Rows of an evaluation as the paper names them.
NAMES = {
    "verifier": "VHS (shipped)",
    "last-block": "VHS, last block",
    "latent": "MLLM w/ AE",
    "clip": "MLLM w/ CLIP",
    "clipscore": "CLIPScore",
    "states shuffled": "VHS, states shuffled",
    "states zeroed": "VHS, states zeroed",
    "mean rank of verifier, clip": "VHS and MLLM w/ CLIP, mean rank",
    "log-odds of verifier, clip": "VHS and MLLM w/ CLIP, log-odds",
    "1 step": "no verifier, 1 step",
    "2 steps": "no verifier, 2 steps",
    "4 steps": "no verifier, 4 steps",
    "8 steps": "no verifier, 8 steps",
}

Figures = dict[str, Any]
Columns = dict[str, Callable[[Figures], str]]


def percent(figure: dict[str, float]) -> str:
    """An estimate and its 95 % interval."""
    return f"{100 * figure['estimate']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def best_of_n(figures: Figures) -> str:
    """Overall and per task, for each N, by the first verifier, at random and by a judge that knows."""
    header = ["Best of", "chosen by", "overall (micro)", "macro", *TASKS.values()]
    (first, *_) = figures["verifiers"]
    rows = [
        [
            str(row["n"]),
            "verifier" if row["strategy"] == first else row["strategy"],
            percent(row["micro"]),
            percent(row["macro"]),
            *(f"{100 * row[task]['estimate']:.1f}" for task in TASKS),
        ]
        for row in figures["best_of_n"]
        if row["strategy"] in (first, "random", "oracle") and (row["n"] > 1 or row["strategy"] == "random")
    ]
    reads, share = figures["settings"]["reads"][first], percent(gap_closed(figures["verifiers"][first]))
    return (
        f"{test_setup(figures)}; the verifier reads {reads}. Of the distance from one candidate to a perfect judge's "
        f"Best-of-8 it closes {share} %.\n\n" + table(header, rows)
    )


def test_setup(figures: Figures) -> str:
    """On what, and how the figures are to be read."""
    return (
        f"{figures['test_cases']} test cases ({figures['distinct_prompts']} prompts), {figures['seeds']} seeds, right "
        "in per cent, 95 % intervals over prompts"
    )


def equal_n(figures: Figures) -> str:
    """Overall of every chooser, a column for each N."""
    return f"{test_setup(figures)}.\n\n" + by_n(figures["best_of_n"])


def by_n(rows: list[Figures]) -> str:
    """A row for each chooser, a column for each N."""
    ns = sorted({row["n"] for row in rows})
    cells = {(row["strategy"], row["n"]): percent(row["micro"]) for row in rows}
    strategies = list(dict.fromkeys(row["strategy"] for row in rows))
    return table(
        ["chosen by", *(f"Best of {n}" for n in ns)],
        [[NAMES.get(strategy, strategy), *(cells[strategy, n] for n in ns)] for strategy in strategies],
    )


def second_evaluator(figures: Figures) -> str:
    """What a judge says that no verifier was trained on."""
    ((evaluator, entry),) = figures["second_evaluators"].items()
    return (
        f"Judged by {evaluator}, which agrees with the detector's verdicts on {percent(entry['agreement'])} % of the "
        f"candidates (Cohen's kappa {entry['cohens_kappa']['estimate']:.2f}).\n\n" + by_n(entry["best_of_n"])
    )


def gap_closed(verifier: Figures) -> dict[str, float]:
    """The share of the distance to a perfect judge that a verifier closes."""
    return next(value for name, value in verifier.items() if name.startswith("oracle_gap_closed"))


def verifiers(figures: Figures) -> str:
    """All verifiers of a test beside each other."""
    rows = [
        [NAMES[name], figures["settings"]["reads"][name], *ranking_cells(verifier), f"{100 * verifier['ties']:.1f}"]
        for name, verifier in figures["verifiers"].items()
    ]
    return table(["verifier", "reads", *RANKING_COLUMNS, "ties for the best, %"], rows)


RANKING_COLUMNS = ["distance closed, %", "pair accuracy, %", "AUROC", "calibration error"]


def ranking_cells(verifier: Figures) -> list[str]:
    """Cells for the columns RANKED."""
    calibration = verifier["expected_calibration_error"]
    return [
        percent(gap_closed(verifier)),
        percent(verifier["pair_accuracy"]),
        f"{verifier['auroc']:.3f}",
        "-" if calibration is None else f"{calibration:.3f}",
    ]


def equal_time(figures: Figures) -> str:
    """The paper's table by time measured here."""
    device = figures["costs"]["provenance"]["device"]
    return f"{test_setup(figures)}. Time from prompt to decoded winner, models warm, on {device}.\n\n" + equal_cost(
        figures["equal_time"], "ms"
    )


def equal_projected_cost(figures: Figures) -> str:
    """The same by the work that the same searches would be on SANA-Sprint 1.6B."""
    return (
        "The same candidates and verdicts, but each way to choose gets the N that its work on SANA-Sprint 1.6B at 1024 "
        "px would allow (counted: encoder, blocks, decoder, CLIP ViT-L/14@336, Qwen2.5-0.5B; read after half of the "
        "blocks; with the prompt's padding, as the pipeline's own call has it)."
        "\n\n" + equal_cost(figures["equal_projected_cost"], "TFLOP")
    )


def equal_cost(rows: list[Figures], unit: str) -> str:
    """A row for each budget and way to choose; p is that of no difference to the budget's first row."""
    header = [f"Budget, {unit}", "Chosen by", "Best of", *TASKS.values(), "Overall", "p"]
    return table(
        header,
        [
            [
                f"{row['budget']:.0f}",
                NAMES[row["strategy"]],
                str(row["n"]),
                *(f"{100 * row[task]['estimate']:.1f}" for task in TASKS),
                percent(row["micro"]),
                "" if row["reference_lead"]["p"] == 1 else f"{row['reference_lead']['p']:.3f}",
            ]
            for row in rows
        ],
    )


def costs(figures: Figures) -> str:
    """What one more candidate costs with each verifier; savings are against the one that reads CLIP."""
    searches = figures["costs"]["searches"]
    each = {name: candidate_costs(entry) for name, entry in searches.items()}
    reference = each.get("clip", next(iter(each.values())))
    rows = [
        [
            NAMES[name],
            *(
                f"{value:.1f} ({100 * (value / reference_cost - 1):+.0f} %)"
                for value, reference_cost in zip(own_costs, reference, strict=True)
            ),
        ]
        for name, own_costs in each.items()
    ]
    unit = "MB at once while 8 are judged"
    return table(["verifier", "ms for one more candidate", "GFLOP for one more", unit], rows)


def stages(figures: Figures) -> str:
    """What each stage is of the work of all, here and on SANA-Sprint 1.6B."""
    measured, projected = figures["costs"]["stage_flops"], figures["projected_stage_flops"]
    unit = "prefix"
    rows = [
        [
            NAMES.get(name, name),
            f"{measured[name] / 1e9:.3f}",
            f"{measured[name] / measured[unit]:.2f}",
            f"{projected[name] / 1e12:.2f}",
            f"{projected[name] / projected[unit]:.2f}",
        ]
        for name in projected
    ]
    relative = "of the way to the verdict"
    return table(["stage", "miniature, GFLOP", relative, "SANA-Sprint 1.6B, TFLOP", relative], rows)


def candidate_costs(search: Figures) -> tuple[float, float, float]:
    """Milliseconds and GFLOP of one more candidate, MB while eight are judged."""
    by_n = {int(n): value for n, value in search["milliseconds"].items()}
    first, last = min(by_n), max(by_n)
    slope = (by_n[last] - by_n[first]) / (last - first)
    return slope, search["candidate_flops"] / 1e9, search["scoring_bytes"]["8"] / 1e6


def study(figures: Figures, extra_columns: Columns) -> str:
    """Verifiers that differ in one thing; `extra_columns` are columns after the variant's name."""
    rows = [
        [
            name,
            *(cell(entry) for cell in extra_columns.values()),
            percent(entry["best_of_8"]),
            *ranking_cells(entry),
            ", ".join(f"{100 * each:.1f}" for each in entry["oracle_gap_closed_per_seed"]),
        ]
        for name, entry in figures["variants"].items()
    ]
    header = [
        "variant",
        *extra_columns,
        "Best-of-8, % right",
        *RANKING_COLUMNS,
        "distance closed by each training seed, %",
    ]
    return (
        f"{figures['test_cases']} test cases, {figures['test_seeds']} seed(s), Best-of-8, 95 % intervals over prompts; "
        f"{figures['training_seeds']} training seed(s) of {figures['steps']} steps each.\n\n" + table(header, rows)
    )


def steps(figures: Figures) -> str:
    """Best-of-1 with more denoising steps."""
    rows = [
        [name.split()[0], percent(row["micro"]), *(f"{100 * row[task]['estimate']:.1f}" for task in TASKS)]
        for name, row in figures["baselines"].items()
    ]
    return f"{test_setup(figures)}.\n\n" + table(["steps", "overall (micro)", *TASKS.values()], rows)


def searches(profile: Figures) -> str:
    """From the prompt to the picture by each way to pick, and what one more candidate costs."""
    (*_, max_n) = ns = [str(n) for n in profile["settings"]["ns"]]
    rows = [
        [
            f"{strategy['strategy']}, {strategy['verifier']}",
            *(f"{strategy['at'][n]['milliseconds']['median']:.0f}" for n in ns),
            f"{strategy['at'][max_n]['roofline_ratio']:.1f}",
            f"{strategy['one_more']['milliseconds']:.1f}",
            f"{strategy['one_more']['flops'] / 1e9:.2f}",
            f"{strategy['memory']['judging']['8'] / 1e6:.1f}",
        ]
        for strategy in profile["strategies"]
    ]
    marginal_columns = ["one more: ms", "one more: GFLOP"]
    header = ["ms with N =", *ns, f"times the floor at {max_n}", *marginal_columns, "MB while 8 are judged"]
    return f"{profile_setup(profile)}.\n\n" + table(header, rows)


def savings(profile: Figures) -> str:
    """Of one more candidate and of all memory, beside what the paper reports."""
    names = ("milliseconds", "flops", "scoring_bytes")
    rows = [
        [entry["strategy"], entry["baseline"], *(f"{entry[name]:.1f}" for name in names)]
        for entry in profile["savings"]
        if "hidden" in entry["strategy"]
    ]
    paper = ["VHS (paper, on its own GPU)", "MLLM w/ CLIP", "63.3", "62.9", "14.5"]
    header = [
        "one more with",
        "against one more with",
        "time saved, %",
        "FLOP saved, %",
        "memory saved, weights included, %",
    ]
    return f"{profile_setup(profile)}.\n\n" + table(header, [*rows, paper])


def profile_deadlines(profile: Figures) -> str:
    """Of a profile."""
    return f"{profile_setup(profile)}.\n\n" + deadline_adherence(profile["deadline_adherence"])


def miniature_deadlines(timing: Figures) -> str:
    """Of the miniature, on its test prompts."""
    return f"The miniature, on {timing['provenance']['device']}.\n\n" + deadline_adherence(
        timing["deadline_adherence"].values()
    )


def deadline_adherence(budgets: Iterable[Figures]) -> str:
    """A row for each budget."""
    header = [
        "budget, ms",
        "searches",
        "N promised, median",
        "judged as many, %",
        "N, median",
        "in time, %",
        "slowest, ms",
    ]
    return table(
        header,
        [
            [
                f"{entry['budget_ms']:g}",
                str(entry["runs"]),
                f"{entry['median_predicted_n']:g}",
                f"{100 * entry['reached_predicted_n']:.0f}",
                f"{entry['median_n']:g}",
                "{:.0f} [{:.1f}, {:.1f}]".format(
                    *(100 * each for each in (entry["on_time"], *entry["on_time_interval"]))
                ),
                f"{entry['slowest']:.0f}",
            ]
            for entry in budgets
        ],
    )


def profile_setup(profile: Figures) -> str:
    """What was measured, and where."""
    settings, provenance = profile["settings"], profile["provenance"]
    size = f"{settings['width']} x {settings['height']} px, {settings['dtype']}"
    compiled = ", compiled" if settings["compiled"] else ""
    where = f"{settings['generator']}, {size}{compiled}, on {provenance['device']}"
    return f"{where}; medians of {settings['rounds']} rounds"


# Name of a study -> what its table tells of each variant besides; the table is there once the study's figures are.
STUDIES: dict[str, Columns] = {
    "layers": {},
    "loss": {},
    "captions": {},
    "pooling": {},
    "data": {},
    "llm": {"parameters of the language model": lambda entry: f"{entry['language_model_parameters']:,}"},
    "generator": {
        "Best-of-1, % right": lambda entry: percent(entry["best_of_1"]),
        "perfect judge's Best-of-8, % right": lambda entry: percent(entry["oracle"]),
    },
}

# Name of a table -> how it is written, and the file of its figures under benchmarks/.
TABLES: dict[str, tuple[Callable[[Figures], str], str]] = {
    "best-of-n": (best_of_n, "miniature.json"),
    "verifiers": (verifiers, "miniature.json"),
    "steps": (steps, "miniature.json"),
    "equal-n": (equal_n, "miniature.json"),
    "second-judge": (second_evaluator, "miniature.json"),
    "equal-time": (equal_time, "miniature.json"),
    "equal-work": (equal_projected_cost, "miniature.json"),
    "costs": (costs, "miniature.json"),
    "stages": (stages, "miniature.json"),
    "searches-small": (searches, "profile/sana-sprint-small/profile.json"),
    "savings-small": (savings, "profile/sana-sprint-small/profile.json"),
    "searches-small-compiled": (searches, "profile/sana-sprint-small-compiled/profile.json"),
    "savings-small-compiled": (savings, "profile/sana-sprint-small-compiled/profile.json"),
    "searches-miniature": (searches, "profile/miniature/profile.json"),
    "searches-miniature-compiled": (searches, "profile/miniature-compiled/profile.json"),
    "budgets-small": (profile_deadlines, "profile/sana-sprint-small/profile.json"),
    "budgets-miniature": (miniature_deadlines, "miniature-time.json"),
    **{
        f"study-{name}": (partial(study, extra_columns=extra_columns), f"studies/{name}.json")
        for name, extra_columns in STUDIES.items()
    },
}


def read_figures() -> dict[str, Figures]:
    """The figures of every file there is that a table is written from."""
    files = {name: BENCHMARKS / name for _, name in TABLES.values()}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}


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
