"""How long a search takes here, and how well time budgets are kept, on the miniature's test prompts."""

import time
from statistics import median
from typing import Any

from forejudge.best_of_n import BestOfN
from forejudge.miniature.splits import cases
from forejudge.progress import Report, Stopwatch
from forejudge.provenance import provenance

BUDGETS_MS = (75, 150, 300)
RUNS = 40
GRACE = 1.1  # a budget counts as kept up to so many times its length


def timing_figures(best: BestOfN, report: Report) -> dict[str, Any]:
    """Best-of-8 in seconds, by stage and as a whole; for each budget how often it was kept and what N it gave.

    The models are warm, the clock of a budget runs from the prompt to the picture in memory.
    """
    prompts = [case.description.prompt for case in cases("test", RUNS // 4)[:: 6 * (RUNS // 4) // RUNS]][:RUNS]
    best(prompts[0])
    stages = [best(prompt, n=8).timings for prompt in prompts]
    budgets = {}
    stopwatch = Stopwatch("budgets", 0, len(BUDGETS_MS))
    for done, budget_ms in enumerate(BUDGETS_MS, start=1):
        budgets[str(budget_ms)] = _kept(best, prompts, budget_ms)
        report(stopwatch.at(done))
    return {
        "provenance": provenance(best.generator.device),
        "runs": len(prompts),
        "best_of_8_seconds": {stage: round(median(run[stage] for run in stages), 4) for stage in stages[0]},
        "budgets": budgets,
    }


def _kept(best: BestOfN, prompts: list[str], budget_ms: int) -> dict[str, float]:
    best(prompts[0], budget_ms=budget_ms)  # measures the costs
    took, drawn = [], []
    for prompt in prompts:
        started = time.perf_counter()
        result = best(prompt, budget_ms=budget_ms)
        took.append(1000 * (time.perf_counter() - started))
        drawn.append(result.record.n)
    kept = sum(ms <= GRACE * budget_ms for ms in took) / len(took)
    return {"kept": kept, "median_ms": round(median(took), 1), "slowest_ms": round(max(took), 1), "n": median(drawn)}
