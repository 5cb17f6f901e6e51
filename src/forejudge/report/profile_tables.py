"""Tables of a profile: stages, searches, memory, savings and deadlines. Times are milliseconds; N counts candidates."""

from collections.abc import Iterable, Sequence

from forejudge.profiling.figures import PAPER, DeadlineAdherence, Profile, Saving, TimingWithRoofline
from forejudge.report.tables import EMPTY, Cell, Table


def stages(profile: Profile) -> Table:
    """Lay out each stage alone, a column for each batch size."""
    ns = profile.settings.ns
    rows = [
        [Cell(name), Cell(format_si(stage.flops)), *(_time(stage.measurements.get(n)) for n in ns)]
        for name, stage in profile.stages.items()
    ]
    title = "Stages: ms, and the ratio to the roofline, by batch size"
    return Table(title, ["Stage", "FLOPs", *map(str, ns)], rows)


def searches(profile: Profile) -> Table:
    """Lay out the time from prompt to image, a column for each N, then the cost of one more candidate."""
    ns = profile.settings.ns
    rows = []
    for strategy in profile.strategies:
        marginal = strategy.marginal_cost
        marginal_cells = (
            [f"{marginal.milliseconds:.1f}", format_si(marginal.flops), format_si(marginal.bytes)]
            if marginal
            else [EMPTY] * 3
        )
        times = [_time(strategy.measurements.get(n)) for n in ns]
        rows.append([Cell(strategy.name), Cell(str(strategy.batch_size)), *times, *map(Cell, marginal_cells)])
    title = "From prompt to image: ms, and the ratio to the roofline, by N"
    return Table(title, ["Strategy", "Batch", *map(str, ns), "One more: ms", "FLOPs", "B"], rows)


def memory(profile: Profile) -> Table:
    """Lay out the peak memory beside the weights, a column for each N."""
    ns = sorted({n for strategy in profile.strategies for n in strategy.memory.scoring})
    rows = []
    for strategy in profile.strategies:
        held = strategy.memory
        peaks = [
            Cell(format_si(held.scoring[n]), format_si(held.end_to_end[n]) if n in held.end_to_end else "") for n in ns
        ]
        rows.append([Cell(strategy.name), Cell(format_si(held.weights)), *peaks])
    title = "Peak memory beside the weights, B: while candidates are scored, and of the whole run, by N"
    return Table(title, ["Strategy", "Weights", *map(str, ns)], rows)


def savings(rows: Sequence[Saving], with_end_to_end: bool = True) -> Table:
    """Lay out what strategies save against others, in per cent, beside the published figures.

    Time and FLOPs are those of one more candidate, memory is all that is held for the first one, weights included.
    """
    headings = ["One more candidate with", "against", "Time", "FLOPs", "Memory while scoring"]
    return Table(
        "Savings, %: time and FLOPs of one more candidate, all memory of the first one",
        [*headings, "Memory end to end"] if with_end_to_end else headings,
        [_saving_cells(saving, with_end_to_end) for saving in (*rows, PAPER)],
        names=2,
    )


def deadlines(rows: Iterable[DeadlineAdherence]) -> Table:
    """Lay out how well searches meet each time budget."""
    return Table(
        "Searches under a time budget",
        [
            "Budget, ms",
            "Searches",
            "Predicted N, median",
            "Predicted N reached, %",
            "N, median",
            "N, least",
            "In time, %",
            "Slowest, ms",
        ],
        [
            [
                Cell(f"{each.budget_ms:g}"),
                Cell(str(each.runs)),
                Cell(f"{each.median_predicted_n:g}"),
                Cell(f"{100 * each.reached_predicted_n:.0f}"),
                Cell(f"{each.median_n:g}"),
                Cell(str(each.min_n)),
                Cell(f"{100 * each.on_time:.0f}", "[{:.1f}, {:.1f}]".format(*(100 * e for e in each.on_time_interval))),
                Cell(f"{each.slowest:.0f}"),
            ]
            for each in rows
        ],
    )


def format_si(value: float, unit: str = "") -> str:
    """Format a number with three digits and the prefix of its power of 1000."""
    for si_prefix in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 999.5 or si_prefix == "P":
            return f"{value:.3g} {si_prefix}{unit}".rstrip()
        value /= 1000
    raise AssertionError("unreachable")


def _saving_cells(saving: Saving, with_end_to_end: bool) -> list[Cell]:
    shares = [saving.milliseconds, saving.flops, saving.scoring_bytes, saving.end_to_end_bytes]
    name = f"{saving.strategy} (paper)" if saving is PAPER else saving.strategy
    cells = [EMPTY if share is None else f"{share:.1f}" for share in shares[: 4 if with_end_to_end else 3]]
    return [Cell(text) for text in (name, saving.baseline, *cells)]


def _time(measured: TimingWithRoofline | None) -> Cell:
    if measured is None:
        return Cell(EMPTY)
    return Cell(f"{measured.milliseconds.median:.1f}", f"×{measured.roofline_ratio:.1f}")
