"""Time of a search on this machine and its deadline adherence, on the miniature's test prompts."""

from statistics import median
from typing import Any

from forejudge.best_of_n import BestOfN
from forejudge.miniature.prompts import cases
from forejudge.profiling.searches import measure_deadline_adherence
from forejudge.progress import ProgressCallback, Stopwatch
from forejudge.result import provenance

BUDGETS_MS = (75, 150, 300)
RUNS = 40


def timing_figures(best_of_n: BestOfN, report: ProgressCallback) -> dict[str, Any]:
    """Measure the seconds of Best-of-8 by stage, on warm models, and a `DeadlineAdherence` for each budget."""
    prompts = [case.description.prompt for case in cases("test", RUNS // 4)[:: 6 * (RUNS // 4) // RUNS]][:RUNS]
    best_of_n(prompts[0])
    stages = [best_of_n(prompt, n=8).timings for prompt in prompts]
    budgets = {}
    stopwatch = Stopwatch("budgets", 0, len(BUDGETS_MS))
    for done, budget_ms in enumerate(BUDGETS_MS, start=1):
        budgets[str(budget_ms)] = measure_deadline_adherence(best_of_n, prompts, budget_ms).model_dump()
        report(stopwatch.at(done))
    return {
        "provenance": provenance(best_of_n.generator.device),
        "runs": len(prompts),
        "best_of_8_seconds": {stage: round(median(run[stage] for run in stages), 4) for stage in stages[0]},
        "deadline_adherence": budgets,
    }
