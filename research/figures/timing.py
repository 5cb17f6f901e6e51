"""How long a search takes here, and how well time budgets are kept, on the miniature's test prompts."""

from statistics import median
from typing import Any

from forejudge.best_of_n import BestOfN
from forejudge.miniature.prompts import cases
from forejudge.profiling.searches import kept_budget
from forejudge.progress import Report, Stopwatch
from forejudge.result import provenance

BUDGETS_MS = (75, 150, 300)
RUNS = 40


def timing_figures(best: BestOfN, report: Report) -> dict[str, Any]:
    """Best-of-8 in seconds, by stage and as a whole, with warm models; for each budget a `KeptBudget`."""
    prompts = [case.description.prompt for case in cases("test", RUNS // 4)[:: 6 * (RUNS // 4) // RUNS]][:RUNS]
    best(prompts[0])
    stages = [best(prompt, n=8).timings for prompt in prompts]
    budgets = {}
    stopwatch = Stopwatch("budgets", 0, len(BUDGETS_MS))
    for done, budget_ms in enumerate(BUDGETS_MS, start=1):
        budgets[str(budget_ms)] = kept_budget(best, prompts, budget_ms).model_dump()
        report(stopwatch.at(done))
    return {
        "provenance": provenance(best.generator.device),
        "runs": len(prompts),
        "best_of_8_seconds": {stage: round(median(run[stage] for run in stages), 4) for stage in stages[0]},
        "budgets": budgets,
    }
