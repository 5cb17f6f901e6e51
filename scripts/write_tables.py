"""Write tables and figures of the documents from the files under benchmarks/: `python scripts/write_tables.py`."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from forejudge.config_files import read_config
from forejudge.evaluation.bootstrap import Difference, Interval
from forejudge.evaluation.report import ORACLE, RANDOM, EvaluationReport
from forejudge.evaluation.study_report import StudyReport
from forejudge.profiling.figures import DeadlineAdherence, Profile
from forejudge.report import profile_tables, tables
from forejudge.report.tables import TASK_NAMES, Cell, Table, describe_test_set, percent
from forejudge.simulation.report import SimulationReport

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / "benchmarks"
WEIGHTS = ROOT / "src" / "forejudge" / "miniature" / "weights"
DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "train-a-verifier.md",
    ROOT / "docs" / "evaluate.md",
    ROOT / "docs" / "what-we-found.md",
    ROOT / "docs" / "profile.md",
    ROOT / "docs" / "search.md",
    WEIGHTS / "generator" / "README.md",
    WEIGHTS / "verifier" / "README.md",
)

# Rows of an evaluation as the paper names them.
NAMES = {
    "verifier": "VHS (shipped)",
    "last-block": "VHS, last block",
    "latent": "MLLM w/ AE",
    "clip": "MLLM w/ CLIP",
    "preview": "MLLM w/ CLIP, tiny decoder",
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


class MiniatureTiming(BaseModel):
    """The part of miniature-time.json that is shown."""

    model_config = ConfigDict(frozen=True)

    provenance: dict[str, str]
    deadline_adherence: dict[str, DeadlineAdherence]


class GradientStep(BaseModel):
    """One radius of noise-gradient.json."""

    radius: float
    probability: Interval
    correct: Interval
    second: Interval
    lead: Difference


class NoiseGradient(BaseModel):
    """The part of noise-gradient.json that is shown."""

    provenance: dict[str, str]
    cases: int
    radii: list[GradientStep]
    best_of_n: dict[int, Interval]
    milliseconds: dict[str, float]


def markdown(introduction: str, table: Table) -> str:
    """Write a table as Markdown below a sentence about it, which may be empty."""
    lines = [
        table.headings,
        ["---"] * len(table.headings),
        *([f"{cell.text} {cell.detail}".rstrip() for cell in row] for row in table.rows),
    ]
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"{introduction}.\n\n{text}" if introduction else text


def gains(report: EvaluationReport) -> str:
    """Write accuracy and time of one image, and of Best-of-N before and after the images are finished."""
    first, finished = next(iter(report.verifiers)), "clip"
    micro = {(row.strategy, row.n): row.micro for row in report.best_of_n}
    milliseconds = {name: search.milliseconds for name, search in report.costs.searches.items()}
    baselines = {"One image": "1 step", "One image, twice the denoising steps": "2 steps"}
    searches = {
        "Best of 4, scored after half of the blocks": (first, 4),
        "Best of 8, scored after half of the blocks": (first, 8),
        "Best of 8, scored on finished images": (finished, 8),
    }
    rows = [
        (label, report.baselines[name].micro, report.costs.baseline_ms[name]) for label, name in baselines.items()
    ] + [(label, micro[name, n], milliseconds[name][n]) for label, (name, n) in searches.items()]
    cells = [[Cell(label), percent(accuracy), Cell(f"{time:.0f}")] for label, accuracy, time in rows]
    return markdown("", Table("", ["On the miniature", "Prompts answered right, %", "ms per prompt"], cells))


def best_of_n(report: EvaluationReport) -> str:
    """Write Best-of-N of the first verifier, random and oracle: overall and on each task."""
    first = next(iter(report.verifiers))
    rows = [
        [
            Cell(str(row.n)),
            Cell("verifier" if row.strategy == first else row.strategy),
            percent(row.micro),
            percent(row.macro),
            *tables.task_cells(row),
        ]
        for row in report.best_of_n
        if row.strategy in (first, RANDOM, ORACLE) and (row.n > 1 or row.strategy == RANDOM)
    ]
    ((n, closed),) = report.verifiers[first].oracle_gap_closed.items()
    share = percent(closed)
    introduction = (
        f"{describe_test_set(report)}; the verifier reads {report.settings.reads[first]}. At Best-of-{n} it closes "
        f"{share.text} {share.detail} % of the gap between one candidate and the oracle"
    )
    headings = ["Best of", "Strategy", "Overall (micro)", "Macro", *TASK_NAMES.values()]
    return markdown(introduction, Table("", headings, rows))


def policies(report: SimulationReport) -> str:
    """Write every simulated rule."""
    table = tables.simulation(report)
    return markdown(table.title, table)


def equal_n(report: EvaluationReport) -> str:
    """Write Best-of-N of every strategy."""
    return markdown(describe_test_set(report), tables.best_of_n("", report.best_of_n, NAMES))


def second_evaluator(report: EvaluationReport) -> str:
    """Write Best-of-N as the second evaluator sees it."""
    ((name, evaluator),) = report.second_evaluators.items()
    table = tables.second_evaluator(name, evaluator, NAMES)
    return markdown(table.title, table)


def verifiers(report: EvaluationReport) -> str:
    """Write the ranking metrics of all verifiers."""
    return markdown("", tables.ranking(report, NAMES))


def equal_time(report: EvaluationReport) -> str:
    """Write the accuracy within time budgets."""
    introduction = (
        f"{describe_test_set(report)}{' and rounds of the timing' * bool(report.costs.rounds)}. Time from prompt to "
        f"decoded winner, models warm, on {report.costs.provenance['device']}"
    )
    return markdown(introduction, tables.equal_cost("", "ms", report.equal_time, NAMES))


def competitors(report: EvaluationReport) -> str:
    """Write the lead of the first verifier at the cost of each other strategy's own N."""
    if not report.competitor_time:
        return "The committed evaluation was made before this table was reported."
    introduction = f"{describe_test_set(report)}. The lead of {NAMES[next(iter(report.verifiers))]} is in points"
    return markdown(introduction, tables.competitors("", "ms", report.competitor_time, NAMES))


def equal_mean_time(report: EvaluationReport) -> str:
    """Write everything at equal mean time."""
    if not report.equal_mean_time:
        return "The committed evaluation was made before this table was reported."
    introduction = (
        f"{describe_test_set(report)}. The lead over fixed Best-of-N of {NAMES[next(iter(report.verifiers))]} at the "
        "same mean time is in points"
    )
    return markdown(introduction, tables.mean_cost("", "ms", report.equal_mean_time, NAMES))


def equal_projected_mean_cost(report: EvaluationReport) -> str:
    """Write everything at equal mean FLOPs on another generator."""
    if report.projected is None or not report.projected.equal_mean_cost:
        return "The committed evaluation was made before this table was reported."
    introduction = (
        f"The same searches by their FLOPs on {report.projected.generator}, where a second step runs all blocks"
    )
    return markdown(introduction, tables.mean_cost("", "TFLOP", report.projected.equal_mean_cost, NAMES))


def equal_projected_cost(report: EvaluationReport) -> str:
    """Write the accuracy within budgets of FLOPs on another generator."""
    assert report.projected is not None
    introduction = (
        "The same candidates and verdicts, but every strategy gets the N that its FLOPs on "
        f"{report.projected.generator} at 1024 px would allow (counted: encoder, blocks, decoder, CLIP ViT-L/14@336, "
        "Qwen2.5-0.5B; read after half of the blocks; with the prompt's padding, as in the pipeline's own call)"
    )
    return markdown(introduction, tables.equal_cost("", "TFLOP", report.projected.equal_cost, NAMES))


def costs(report: EvaluationReport) -> str:
    """Write the cost of one more candidate with each verifier."""
    return markdown("", tables.costs(report.costs, report.settings.reads, NAMES))


def stages(report: EvaluationReport) -> str:
    """Write the FLOPs of each stage, measured and projected, also relative to the prefix."""
    assert report.projected is not None
    measured, projected = report.costs.stage_flops, report.projected.stage_flops
    rows = [
        [
            NAMES.get(name, name),
            f"{measured[name] / 1e9:.3f}",
            f"{measured[name] / measured['prefix']:.2f}",
            f"{flops / 1e12:.2f}",
            f"{flops / projected['prefix']:.2f}",
        ]
        for name, flops in projected.items()
    ]
    relative = "relative to the prefix"
    headings = ["Stage", "Miniature, GFLOP", relative, f"{report.projected.generator}, TFLOP", relative]
    return markdown("", Table("", headings, [list(map(Cell, row)) for row in rows]))


def steps(report: EvaluationReport) -> str:
    """Write the accuracy of one image with more denoising steps."""
    rows = [
        [Cell(name.split()[0]), percent(averages.micro), *tables.task_cells(averages)]
        for name, averages in report.baselines.items()
    ]
    return markdown(describe_test_set(report), Table("", ["Steps", "Overall (micro)", *TASK_NAMES.values()], rows))


def study(report: StudyReport) -> str:
    """Write the variants of a study."""
    table = tables.study(report)
    return markdown(table.title, table)


def noise_gradient(report: NoiseGradient) -> str:
    """Write what a step up the gradient in the noise does, by its radius, and Best-of-N beside it."""
    rows = [
        [
            Cell(f"{step.radius:g}"),
            *map(percent, (step.probability, step.correct, step.second, step.lead)),
            Cell(f"{step.lead.p:.3f}"),
        ]
        for step in report.radii
    ]
    times = ", ".join(f"{name} {milliseconds:.0f}" for name, milliseconds in report.milliseconds.items())
    best = ", ".join(f"N = {n}: {percent(share).text}" for n, share in report.best_of_n.items())
    introduction = (
        f"{report.cases} validation cases, one candidate each, 95 % intervals over prompts. Milliseconds of a search, "
        f"without encoding: {times}; on {report.provenance['device']}. Best-of-N on the same cases, %: {best}"
    )
    header = ["Radius", "Mean probability, %", "Right, %", "Right to another evaluator, %", "Lead", "p"]
    return markdown(introduction, Table("", header, rows))


def searches(profile: Profile) -> str:
    """Write the time from prompt to image of each search strategy, and the cost of one more candidate."""
    ns = profile.settings.ns
    rows = []
    for strategy in profile.strategies:
        marginal, last = strategy.marginal_cost, strategy.measurements[ns[-1]]
        assert marginal is not None
        rows.append(
            [
                strategy.name,
                *(f"{strategy.measurements[n].milliseconds.median:.0f}" for n in ns),
                f"{last.roofline_ratio:.1f}",
                f"{marginal.milliseconds:.1f}",
                f"{marginal.flops / 1e9:.2f}",
                f"{strategy.memory.scoring[8] / 1e6:.1f}",
            ]
        )
    headings = [
        "ms at N =",
        *map(str, ns),
        f"ratio to the roofline at {ns[-1]}",
        "one more: ms",
        "one more: GFLOP",
        "MB while scoring 8",
    ]
    return markdown(describe_profile(profile), Table("", headings, [list(map(Cell, row)) for row in rows]))


def savings(profile: Profile) -> str:
    """Write the savings of hidden-state verifiers beside those of the paper."""
    hidden = [saving for saving in profile.savings if "hidden" in saving.strategy]
    table = profile_tables.savings(hidden, with_end_to_end=False)
    headings = [*table.headings[:2], "time saved, %", "FLOPs saved, %", "memory saved, weights included, %"]
    (paper, *cells), rows = table.rows[-1], table.rows[:-1]
    rows = [*rows, [replace(paper, text="VHS (paper, on its own GPU)"), *cells]]
    return markdown(describe_profile(profile), replace(table, headings=headings, rows=rows))


def profile_deadlines(profile: Profile) -> str:
    """Write the deadline adherence of a profile."""
    return markdown(describe_profile(profile), deadlines(profile.deadline_adherence))


def miniature_deadlines(timing: MiniatureTiming) -> str:
    """Write the deadline adherence of the miniature on its test prompts."""
    return markdown(f"The miniature, on {timing.provenance['device']}", deadlines(timing.deadline_adherence.values()))


def deadlines(rows: Iterable[DeadlineAdherence]) -> Table:
    """Lay out deadlines without the least N."""
    table = profile_tables.deadlines(rows)
    least = table.headings.index("N, least")

    rows_without = [[*row[:least], *row[least + 1 :]] for row in table.rows]
    return replace(table, headings=[*table.headings[:least], *table.headings[least + 1 :]], rows=rows_without)


def describe_profile(profile: Profile) -> str:
    """Describe what was measured, and where."""
    settings = profile.settings
    size = f"{settings.width} x {settings.height} px, {settings.dtype}{', compiled' if settings.compiled else ''}"
    where = f"{settings.generator}, {size}, on {profile.provenance['device']}"
    return f"{where}; medians of {settings.rounds} rounds"


def lead_at_equal_n(report: EvaluationReport) -> str:
    """Write the lead over CLIP at N = 8."""
    return describe_leads([row.lead for row in report.leads if row.other == "clip" and row.n == 8])


def lead_at_equal_time(report: EvaluationReport) -> str:
    """Write the lead over CLIP at each budget."""
    return describe_leads([row.reference_lead for row in report.equal_time if row.strategy == "clip"])


def lead_at_competitors_n(report: EvaluationReport) -> str:
    """Write the lead over CLIP at the cost of its own N."""
    return describe_leads([row.lead for row in report.competitor_time if row.competitor == "clip"])


def describe_leads(leads: Sequence[Difference]) -> str:
    """Write the least and the greatest lead in points, and the greatest p."""
    if not leads:
        return "an amount that the committed evaluation doesn't report"
    points = [f"{100 * lead.estimate:.1f}" for lead in sorted(leads, key=lambda lead: lead.estimate)]
    p = max(lead.p for lead in leads)
    return f"{' to '.join(dict.fromkeys([points[0], points[-1]]))} points (p {'=' if len(leads) == 1 else '≤'} {p:.3f})"


def baseline_accuracy(name: str) -> Callable[[EvaluationReport], str]:
    """Return the function that writes the accuracy of a baseline."""
    return lambda report: f"{percent(report.baselines[name].micro).text} %"


def accuracy(n: int) -> Callable[[EvaluationReport], str]:
    """Return the function that writes the first verifier's accuracy at N."""

    def write(report: EvaluationReport) -> str:
        first = next(iter(report.verifiers))
        return next(f"{percent(row.micro).text} %" for row in report.best_of_n if (row.strategy, row.n) == (first, n))

    return write


_SMALL, _MINIATURE = "profile/sana-sprint-small", "profile/miniature"
_STUDIES = ("layers", "loss", "captions", "pooling", "data", "llm", "generator")

# Name of a table -> its function, the model of its file, and the file under benchmarks/.
TABLES: dict[str, tuple[Callable[..., str], type[BaseModel], str]] = {
    "gains": (gains, EvaluationReport, "miniature.json"),
    "best-of-n": (best_of_n, EvaluationReport, "miniature.json"),
    "verifiers": (verifiers, EvaluationReport, "miniature.json"),
    "steps": (steps, EvaluationReport, "miniature.json"),
    "equal-n": (equal_n, EvaluationReport, "miniature.json"),
    "second-evaluator": (second_evaluator, EvaluationReport, "miniature.json"),
    "equal-time": (equal_time, EvaluationReport, "miniature.json"),
    "competitors": (competitors, EvaluationReport, "miniature.json"),
    "equal-mean-time": (equal_mean_time, EvaluationReport, "miniature.json"),
    "equal-projected-mean-cost": (equal_projected_mean_cost, EvaluationReport, "miniature.json"),
    "equal-projected-cost": (equal_projected_cost, EvaluationReport, "miniature.json"),
    "costs": (costs, EvaluationReport, "miniature.json"),
    "stages": (stages, EvaluationReport, "miniature.json"),
    "searches-small": (searches, Profile, f"{_SMALL}/profile.json"),
    "savings-small": (savings, Profile, f"{_SMALL}/profile.json"),
    "budgets-small": (profile_deadlines, Profile, f"{_SMALL}/profile.json"),
    "searches-small-compiled": (searches, Profile, f"{_SMALL}-compiled/profile.json"),
    "savings-small-compiled": (savings, Profile, f"{_SMALL}-compiled/profile.json"),
    "searches-miniature": (searches, Profile, f"{_MINIATURE}/profile.json"),
    "searches-miniature-compiled": (searches, Profile, f"{_MINIATURE}-compiled/profile.json"),
    "budgets-miniature": (miniature_deadlines, MiniatureTiming, "miniature-time.json"),
    "noise-gradient": (noise_gradient, NoiseGradient, "noise-gradient.json"),
    "policies": (policies, SimulationReport, "simulate/simulation.json"),
    **{f"study-{name}": (study, StudyReport, f"studies/{name}.json") for name in _STUDIES},
}


# Name of a figure in the text -> the function that writes it from miniature.json.
FIGURES: dict[str, Callable[[EvaluationReport], str]] = {
    "lead-at-equal-n": lead_at_equal_n,
    "lead-at-equal-time": lead_at_equal_time,
    "lead-at-competitors-n": lead_at_competitors_n,
    "one-step": baseline_accuracy("1 step"),
    "two-steps": baseline_accuracy("2 steps"),
    "four-steps": baseline_accuracy("4 steps"),
    "best-of-2": accuracy(2),
}


@cache
def read_figures(file: str, model: type[BaseModel]) -> BaseModel:
    """Read a file under benchmarks/. Raises CheckpointError."""
    return read_config(BENCHMARKS / file, model)


def with_tables(document: str) -> str:
    """Return the document with the text between its marks of tables and figures written anew."""

    def fill_table(match: re.Match[str]) -> str:
        write, model, file = TABLES[match[2]]
        return f"{match[1]}\n{write(read_figures(file, model))}\n<!-- end of table -->"

    def fill_figure(match: re.Match[str]) -> str:
        report = read_figures("miniature.json", EvaluationReport)
        assert isinstance(report, EvaluationReport)
        return f"{match[1]}{FIGURES[match[2]](report)}<!-- end of figure -->"

    document = re.sub(r"(<!-- table: ([\w-]+) -->).*?<!-- end of table -->", fill_table, document, flags=re.DOTALL)
    return re.sub(r"(<!-- figure: ([\w-]+) -->).*?<!-- end of figure -->", fill_figure, document, flags=re.DOTALL)


if __name__ == "__main__":
    for path in DOCUMENTS:
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
