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
            "verifier" if row["chosen_by"] == first else row["chosen_by"],
            percent(row["micro"]),
            percent(row["macro"]),
            *(f"{100 * row[task]['estimate']:.1f}" for task in TASKS),
        ]
        for row in figures["best_of_n"]
        if row["chosen_by"] in (first, "random", "perfect judge") and (row["n"] > 1 or row["chosen_by"] == "random")
    ]
    reads, share = figures["settings"]["reads"][first], percent(closed(figures["verifiers"][first]))
    return (
        f"{tested(figures)}; the verifier reads {reads}. Of the distance from one candidate to a perfect judge's "
        f"Best-of-8 it closes {share} %.\n\n" + table(header, rows)
    )


def tested(figures: Figures) -> str:
    """On what, and how the figures are to be read."""
    return (
        f"{figures['test_cases']} test cases ({figures['distinct_prompts']} prompts), {figures['seeds']} seeds, right "
        "in per cent, 95 % intervals over prompts"
    )


def equal_n(figures: Figures) -> str:
    """Overall of every chooser, a column for each N."""
    return f"{tested(figures)}.\n\n" + by_n(figures["best_of_n"])


def by_n(rows: list[Figures]) -> str:
    """A row for each chooser, a column for each N."""
    ns = sorted({row["n"] for row in rows})
    found = {(row["chosen_by"], row["n"]): percent(row["micro"]) for row in rows}
    choosers = list(dict.fromkeys(row["chosen_by"] for row in rows))
    return table(
        ["chosen by", *(f"Best of {n}" for n in ns)],
        [[NAMES.get(chooser, chooser), *(found[chooser, n] for n in ns)] for chooser in choosers],
    )


def second(figures: Figures) -> str:
    """What a judge says that no verifier was trained on."""
    ((judge, found),) = figures["second_evaluators"].items()
    return (
        f"Judged by {judge}, which agrees with the detector's verdicts on {percent(found['agreement'])} % of the "
        f"candidates (Cohen's kappa {found['cohens_kappa']['estimate']:.2f}).\n\n" + by_n(found["best_of_n"])
    )


def closed(verifier: Figures) -> dict[str, float]:
    """The share of the distance to a perfect judge that a verifier closes."""
    return next(value for name, value in verifier.items() if name.startswith("distance_closed"))


def verifiers(figures: Figures) -> str:
    """All verifiers of a test beside each other."""
    rows = [
        [NAMES[name], figures["settings"]["reads"][name], *ranked(verifier), f"{100 * verifier['ties']:.1f}"]
        for name, verifier in figures["verifiers"].items()
    ]
    return table(["verifier", "reads", *RANKED, "ties for the best, %"], rows)


RANKED = ["distance closed, %", "pair accuracy, %", "AUROC", "calibration error"]


def ranked(verifier: Figures) -> list[str]:
    """Cells for the columns RANKED."""
    calibration = verifier["expected_calibration_error"]
    return [
        percent(closed(verifier)),
        percent(verifier["pair_accuracy"]),
        f"{verifier['auroc']:.3f}",
        "-" if calibration is None else f"{calibration:.3f}",
    ]


def equal_time(figures: Figures) -> str:
    """The paper's table by time measured here."""
    device = figures["costs"]["made"]["device"]
    return f"{tested(figures)}. Time from prompt to decoded winner, models warm, on {device}.\n\n" + equal_cost(
        figures["equal_time"], "ms"
    )


def equal_work(figures: Figures) -> str:
    """The same by the work that the same searches would be on SANA-Sprint 1.6B."""
    return (
        "The same candidates and verdicts, but each way to choose gets the N that its work on SANA-Sprint 1.6B at 1024 "
        "px would allow (counted: encoder, blocks, decoder, CLIP ViT-L/14@336, Qwen2.5-0.5B; read after half of the "
        "blocks; with the prompt's padding, as the pipeline's own call has it)."
        "\n\n" + equal_cost(figures["equal_work"], "TFLOP")
    )


def equal_cost(rows: list[Figures], unit: str) -> str:
    """A row for each budget and way to choose; p is that of no difference to the budget's first row."""
    header = [f"Budget, {unit}", "Chosen by", "Best of", *TASKS.values(), "Overall", "p"]
    return table(
        header,
        [
            [
                f"{row['budget']:.0f}",
                NAMES[row["chosen_by"]],
                str(row["n"]),
                *(f"{100 * row[task]['estimate']:.1f}" for task in TASKS),
                percent(row["micro"]),
                "" if row["reference_ahead_by"]["p"] == 1 else f"{row['reference_ahead_by']['p']:.3f}",
            ]
            for row in rows
        ],
    )


def costs(figures: Figures) -> str:
    """What one more candidate costs with each verifier; savings are against the one that reads CLIP."""
    searches = figures["costs"]["searches"]
    each = {name: candidate_costs(found) for name, found in searches.items()}
    dearest = each.get("clip", next(iter(each.values())))
    rows = [
        [
            NAMES[name],
            *(f"{value:.1f} ({100 * (value / most - 1):+.0f} %)" for value, most in zip(mine, dearest, strict=True)),
        ]
        for name, mine in each.items()
    ]
    unit = "MB at once while 8 are judged"
    return table(["verifier", "ms for one more candidate", "GFLOP for one more", unit], rows)


def stages(figures: Figures) -> str:
    """What each stage is of the work of all, here and on SANA-Sprint 1.6B."""
    here, there = figures["costs"]["stage_flops"], figures["stage_flops_elsewhere"]
    unit = "to the verdict"
    rows = [
        [
            NAMES.get(name, name),
            f"{here[name] / 1e9:.3f}",
            f"{here[name] / here[unit]:.2f}",
            f"{there[name] / 1e12:.2f}",
            f"{there[name] / there[unit]:.2f}",
        ]
        for name in there
    ]
    relative = "of the way to the verdict"
    return table(["stage", "miniature, GFLOP", relative, "SANA-Sprint 1.6B, TFLOP", relative], rows)


def candidate_costs(search: Figures) -> tuple[float, float, float]:
    """Milliseconds and GFLOP of one more candidate, MB while eight are judged."""
    by_n = {int(n): value for n, value in search["milliseconds"].items()}
    first, last = min(by_n), max(by_n)
    slope = (by_n[last] - by_n[first]) / (last - first)
    return slope, search["candidate_flops"] / 1e9, search["judging_bytes"]["8"] / 1e6


def study(figures: Figures, also: Columns) -> str:
    """Verifiers that differ in one thing; `also` are columns after the variant's name."""
    rows = [
        [
            name,
            *(cell(found) for cell in also.values()),
            percent(found["best_of_8"]),
            *ranked(found),
            ", ".join(f"{100 * each:.1f}" for each in found["distance_closed_of_each_seed"]),
        ]
        for name, found in figures["variants"].items()
    ]
    header = ["variant", *also, "Best-of-8, % right", *RANKED, "distance closed by each training seed, %"]
    return (
        f"{figures['test_cases']} test cases, {figures['test_seeds']} seed(s), Best-of-8, 95 % intervals over prompts; "
        f"{figures['training_seeds']} training seed(s) of {figures['steps']} steps each.\n\n" + table(header, rows)
    )


def steps(figures: Figures) -> str:
    """Best-of-1 with more denoising steps."""
    rows = [
        [name.split()[0], percent(row["micro"]), *(f"{100 * row[task]['estimate']:.1f}" for task in TASKS)]
        for name, row in figures["plain"].items()
    ]
    return f"{tested(figures)}.\n\n" + table(["steps", "overall (micro)", *TASKS.values()], rows)


def searches(profile: Figures) -> str:
    """From the prompt to the picture by each way to pick, and what one more candidate costs."""
    (*_, most) = ns = [str(n) for n in profile["settings"]["ns"]]
    rows = [
        [
            f"{way['strategy']}, {way['verifier']}",
            *(f"{way['at'][n]['milliseconds']['median']:.0f}" for n in ns),
            f"{way['at'][most]['times_floor']:.1f}",
            f"{way['one_more']['milliseconds']:.1f}",
            f"{way['one_more']['flops'] / 1e9:.2f}",
            f"{way['memory']['judging']['8'] / 1e6:.1f}",
        ]
        for way in profile["strategies"]
    ]
    of_one_more = ["one more: ms", "one more: GFLOP"]
    header = ["ms with N =", *ns, f"times the floor at {most}", *of_one_more, "MB while 8 are judged"]
    return f"{profiled(profile)}.\n\n" + table(header, rows)


def savings(profile: Figures) -> str:
    """Of one more candidate and of all memory, beside what the paper reports."""
    names = ("milliseconds", "flops", "judging_bytes")
    rows = [
        [found["of"], found["against"], *(f"{found[name]:.1f}" for name in names)]
        for found in profile["savings"]
        if "hidden" in found["of"]
    ]
    paper = ["VHS (paper, on its own GPU)", "MLLM w/ CLIP", "63.3", "62.9", "14.5"]
    header = [
        "one more with",
        "against one more with",
        "time saved, %",
        "FLOP saved, %",
        "memory saved, weights included, %",
    ]
    return f"{profiled(profile)}.\n\n" + table(header, [*rows, paper])


def profile_budgets(profile: Figures) -> str:
    """Of a profile."""
    return f"{profiled(profile)}.\n\n" + kept_budgets(profile["budgets"])


def miniature_budgets(timing: Figures) -> str:
    """Of the miniature, on its test prompts."""
    return f"The miniature, on {timing['provenance']['device']}.\n\n" + kept_budgets(timing["budgets"].values())


def kept_budgets(budgets: Iterable[Figures]) -> str:
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
                f"{found['budget_milliseconds']:g}",
                str(found["runs"]),
                f"{found['median_promised']:g}",
                f"{100 * found['as_promised']:.0f}",
                f"{found['median_n']:g}",
                "{:.0f} [{:.1f}, {:.1f}]".format(
                    *(100 * each for each in (found["in_time"], *found["in_time_interval"]))
                ),
                f"{found['slowest']:.0f}",
            ]
            for found in budgets
        ],
    )


def profiled(profile: Figures) -> str:
    """What was measured, and where."""
    settings, made = profile["settings"], profile["made"]
    size = f"{settings['width']} x {settings['height']} px, {settings['dtype']}"
    compiled = ", compiled" if settings["compiled"] else ""
    where = f"{settings['generator']}, {size}{compiled}, on {made['device']}"
    return f"{where}; medians of {settings['rounds']} rounds"


# Name of a study -> what its table tells of each variant besides; the table is there once the study's figures are.
STUDIES: dict[str, Columns] = {
    "layers": {},
    "loss": {},
    "captions": {},
    "pooling": {},
    "data": {},
    "llm": {"parameters of the language model": lambda found: f"{found['language_model_parameters']:,}"},
    "generator": {
        "Best-of-1, % right": lambda found: percent(found["best_of_1"]),
        "perfect judge's Best-of-8, % right": lambda found: percent(found["perfect_judge"]),
    },
}

# Name of a table -> how it is written, and the file of its figures under benchmarks/.
TABLES: dict[str, tuple[Callable[[Figures], str], str]] = {
    "best-of-n": (best_of_n, "miniature.json"),
    "verifiers": (verifiers, "miniature.json"),
    "steps": (steps, "miniature.json"),
    "equal-n": (equal_n, "miniature.json"),
    "second-judge": (second, "miniature.json"),
    "equal-time": (equal_time, "miniature.json"),
    "equal-work": (equal_work, "miniature.json"),
    "costs": (costs, "miniature.json"),
    "stages": (stages, "miniature.json"),
    "searches-small": (searches, "profile/sana-sprint-small/profile.json"),
    "savings-small": (savings, "profile/sana-sprint-small/profile.json"),
    "searches-small-compiled": (searches, "profile/sana-sprint-small-compiled/profile.json"),
    "savings-small-compiled": (savings, "profile/sana-sprint-small-compiled/profile.json"),
    "searches-miniature": (searches, "profile/miniature/profile.json"),
    "searches-miniature-compiled": (searches, "profile/miniature-compiled/profile.json"),
    "budgets-small": (profile_budgets, "profile/sana-sprint-small/profile.json"),
    "budgets-miniature": (miniature_budgets, "miniature-time.json"),
    **{f"study-{name}": (partial(study, also=also), f"studies/{name}.json") for name, also in STUDIES.items()},
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
