"""A profile for the eye."""

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from forejudge.profiling.profile_figures import PAPER

if TYPE_CHECKING:
    from forejudge.profiling.profile_figures import Measured, Profile, Saving


def print_profile(found: "Profile") -> None:
    """What was measured, every stage, every way to pick, what each holds in memory, and what ours save."""
    console, settings, rates = Console(highlight=False), found.settings, found.rates
    console.print(f"Figures {settings.figures} ({found.made['device']}).", style="bold")
    console.print(
        f"{settings.models}, {settings.width} x {settings.height} px; the device multiplies at "
        f"{_scaled(rates.flops_per_second, 'FLOP/s')} and moves {_scaled(rates.bytes_per_second, 'B/s')}."
    )
    console.print(stages_table(found))
    console.print(strategies_table(found))
    console.print(memory_table(found))
    if found.savings:
        console.print(savings_table(found))
    if found.budgets:
        console.print(budgets_table(found))


def stages_table(found: "Profile") -> Table:
    """A column for each batch size."""
    ns = found.settings.ns
    table = _table("Stages, ms and how many times the floor, by batch size", "stage", "FLOP", *map(str, ns))
    for name, stage in found.stages.items():
        table.add_row(name, _scaled(stage.flops), *(_time(stage.at.get(n)) for n in ns))
    return table


def strategies_table(found: "Profile") -> Table:
    """A column for each N, then what one more candidate costs."""
    ns = found.settings.ns
    title = "From the prompt to the picture, ms and how many times the floor, by N"
    table = _table(title, "strategy", "at once", *map(str, ns), "one more: ms", "FLOP", "B")
    for figures in found.strategies:
        more = figures.one_more
        slope = (f"{more.milliseconds:.1f}", _scaled(more.flops), _scaled(more.bytes)) if more else ("", "", "")
        table.add_row(figures.name, str(figures.batch_size), *(_time(figures.at.get(n)) for n in ns), *slope)
    return table


def memory_table(found: "Profile") -> Table:
    """The most that is held beside the weights."""
    ns = sorted({n for figures in found.strategies for n in figures.memory.judging})
    title = "Memory beside the weights, B: while candidates are judged, and of the whole run, by N"
    table = _table(title, "strategy", "weights", *map(str, ns))
    for figures in found.strategies:
        memory = figures.memory
        cells = [f"{_scaled(memory.judging[n])}\n{_scaled(memory.joint[n]) if n in memory.joint else ''}" for n in ns]
        table.add_row(figures.name, _scaled(memory.weights), *cells)
    return table


def savings_table(found: "Profile") -> Table:
    """Beside what the paper says."""
    title = "Saved, %: of one more candidate's time and FLOPs, and of all memory for the first one"
    table = _table(title, "", "against", "time", "FLOPs", "memory\njudging", "memory\njoint")
    for saving in (*found.savings, PAPER):
        table.add_row(*_saving_cells(saving), style="dim" if saving is PAPER else None)
    return table


def budgets_table(found: "Profile") -> Table:
    """A row for each budget."""
    title = "Searches under a time budget"
    headings = (
        "ms",
        "searches",
        "N promised, median",
        "kept, %",
        "N, median",
        "N, least",
        "in time, %",
        "95 % interval",
        "slowest, ms",
    )
    table = _table(title, *headings)
    for budget in found.budgets:
        low, high = budget.in_time_interval
        table.add_row(
            f"{budget.budget_milliseconds:g}",
            str(budget.runs),
            f"{budget.median_promised:g}",
            f"{100 * budget.as_promised:.0f}",
            f"{budget.median_n:g}",
            str(budget.least_n),
            f"{100 * budget.in_time:.0f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{budget.slowest:.0f}",
        )
    return table


def _saving_cells(saving: "Saving") -> tuple[str, ...]:
    shares = (saving.milliseconds, saving.flops, saving.judging_bytes, saving.joint_bytes)
    who = f"{saving.of} (paper)" if saving is PAPER else saving.of
    return (who, saving.against, *("" if share is None else f"{share:.1f}" for share in shares))


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column(first)
    for heading in others:
        table.add_column(heading, justify="left" if heading == "against" else "right")
    return table


def _time(measured: "Measured | None") -> str:
    if measured is None:
        return ""
    return f"{measured.milliseconds.median:.1f}\n×{measured.times_floor:.1f}"


def _scaled(value: float, unit: str = "") -> str:
    """With a letter for the power of 1000."""
    for letter in ("", "k", "M", "G", "T", "P"):
        if abs(value) < 999.5 or letter == "P":
            return f"{value:.3g} {letter}{unit}".rstrip()
        value /= 1000
    raise AssertionError("unreachable")
