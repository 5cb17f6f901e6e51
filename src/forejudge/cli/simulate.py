"""`forejudge simulate`: quality of search policies against their mean cost, from recorded verdicts."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from forejudge.cli.common import echo
from forejudge.errors import InvalidRequest, MissingExtra
from forejudge.options import MAX_COUNT, MAX_MS

_FIGURES, _PLOT = "simulation.json", "simulation.png"


def simulate(
    recording: Annotated[
        Path,
        Argument(metavar="PATH", help="Folder of `forejudge eval --record-for simulate`, or a file that --save wrote."),
    ],
    verifier: Annotated[str | None, Option(help="Verifier of the recording (default: its first one).")] = None,
    unit: Annotated[
        str, Option(metavar="candidates|ms", help="Unit of costs: candidates, or measured ms.")
    ] = "candidates",
    second_step_cost: Annotated[
        float, Option(min=0, max=MAX_COUNT, help="Cost of a winner's second step in candidates (SANA-Sprint's: 1.41).")
    ] = 1.41,
    n: Annotated[str | None, Option("--n", help="N of fixed, comma separated (default: 1,2,4,8,16,32,64).")] = None,
    until: Annotated[str | None, Option(help="Probabilities of until (default: 0.5,0.7,0.8,0.9,0.95,0.98).")] = None,
    price: Annotated[
        str | None,
        Option(help="Prices of expected improvement (default: 0.001,0.002,0.003,0.006,0.012,0.024)."),
    ] = None,
    refine_below: Annotated[
        str | None,
        Option(help="Probabilities below which the winner takes a second step (default: 0.9 where it was recorded)."),
    ] = None,
    budget_ms: Annotated[str | None, Option(help="Deadlines in ms, with --unit ms (default: none).")] = None,
    orders: Annotated[
        int, Option(min=1, max=MAX_COUNT, help="Orders in which each case's recorded candidates are searched.")
    ] = 8,
    save: Annotated[
        Path | None, Option(metavar="FILE", help="Further file for the recorded verdicts, to simulate from it later.")
    ] = None,
    out: Annotated[Path, Option(metavar="DIR", help=f"Folder for {_FIGURES} and {_PLOT}.")] = Path("runs/simulation"),
) -> None:
    """Run every policy on recorded verdicts: accuracy against mean cost, beside fixed Best-of-N at the same cost."""
    from forejudge.cli.options import parse_ints, parse_shares
    from forejudge.cli.progress import spinner
    from forejudge.cli.tables import print_table

    with spinner("reading"):
        import torch

        from forejudge.report.tables import simulation as simulation_table
        from forejudge.result import provenance
        from forejudge.simulation.recording import load_recording
        from forejudge.simulation.report import simulation_report
        from forejudge.simulation.rules import Grid
        from forejudge.simulation.simulate import CANDIDATES, MILLISECONDS, UnitCosts

        loaded = load_recording(recording)
        name = _choose_verifier(loaded.verifiers, verifier)
    if save is not None:
        loaded.write(save)
        echo(f"verdicts written to {save}")
    if unit not in (CANDIDATES, MILLISECONDS):
        raise InvalidRequest(f"--unit {unit!r}: expected {CANDIDATES} or {MILLISECONDS}")
    recorded_steps = (0.9,) if loaded.outcomes.second_step_correct_CSN is not None else ()
    grid = Grid(
        loaded.outcomes.candidates,
        ns=parse_ints("--n", n) if n else Grid.ns,
        untils=parse_shares("--until", until) if until else Grid.untils,
        prices=parse_shares("--price", price) if price else Grid.prices,
        refine_below=(0.0, *(parse_shares("--refine-below", refine_below) if refine_below else recorded_steps)),
        budgets_ms=parse_ints("--budget-ms", budget_ms, MAX_MS) if budget_ms else Grid.budgets_ms,
    )
    costs = (
        UnitCosts.in_candidates(second_step_cost)
        if unit == CANDIDATES
        else UnitCosts.in_milliseconds(loaded.header.costs, name)
    )
    with spinner("simulating"):
        report = simulation_report(provenance(torch.device("cpu")), loaded, name, costs, grid, orders)
    report.write(out / _FIGURES)
    print_table(simulation_table(report))
    try:
        from forejudge.report.simulation_plot import write_simulation_plot

        write_simulation_plot(report, out / _PLOT)
    except MissingExtra as error:
        return echo(f"written to {out / _FIGURES}; no plot: {error}")
    echo(f"written to {out / _FIGURES} and {_PLOT}")


def _choose_verifier(known: list[str], given: str | None) -> str:
    if not known:
        raise InvalidRequest("no verifier of the recording is calibrated: expected one with probabilities")
    if given is not None and given not in known:
        raise InvalidRequest(f"--verifier {given!r} is not in the recording: expected one of {', '.join(known)}")
    return given or known[0]
