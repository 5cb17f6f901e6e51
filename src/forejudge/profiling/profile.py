"""The whole profile: rates of the device, every stage by itself, and every way to pick the best as a whole."""

from collections.abc import Sequence

from forejudge.best_of_n import BestOfN
from forejudge.device import dtype_name
from forejudge.errors import InvalidRequest
from forejudge.profiling.comparison import savings
from forejudge.profiling.device_rates import device_rates
from forejudge.profiling.kept_budgets import KeptBudget, kept_budget
from forejudge.profiling.profile_figures import WARM_UP, Profile, Settings
from forejudge.profiling.profiled import Profiled
from forejudge.profiling.stage_profile import stage_figures
from forejudge.profiling.strategies import Forejudge
from forejudge.profiling.strategy_profile import new_strategies, strategy_figures
from forejudge.progress import Report, Stopwatch
from forejudge.provenance import provenance

SEARCHES = 100  # with each budget
_ON_CPU = "of a CPU: they say nothing of a GPU"
_ON_GPU = "of a GPU, by its own clock"


def profile(
    models: Profiled,
    ns: Sequence[int],
    rounds: int,
    strategies: Sequence[str],
    report: Report,
    budgets_ms: Sequence[int] = (),
) -> Profile:
    """Measure with each of `ns` candidates, in so many rounds; for `strategies` see `new_strategies`.

    For each budget 100 searches of ours. Raises InvalidRequest for a strategy that cannot be run, a size that the
    generator cannot draw, and a budget in which nothing fits.
    """
    generator = models.generator
    conditioning = models.conditioning
    search = _search(models) if budgets_ms else None
    if search:  # a budget in which nothing fits is refused now, not when all else is measured
        search(models.prompt, budget_ms=min(budgets_ms), sampling=models.sampling)
    compared = new_strategies(models, strategies, max(ns))
    rates = device_rates(generator.device, generator.dtype)
    stages = stage_figures(models, ns, rounds, rates, report)
    found = strategy_figures(compared, ns, rounds, rates, report)
    settings = Settings(
        figures=_ON_GPU if generator.device.type == "cuda" else _ON_CPU,
        generator=generator.name,
        verifiers={kind: verifier.name for kind, verifier in models.verifiers.items()},
        prefix_blocks=models.blocks,
        ns=tuple(ns),
        height=conditioning.size[0],
        width=conditioning.size[1],
        device=str(generator.device),
        dtype=dtype_name(generator.dtype),
        compiled=models.plain is not None,
        rounds=rounds,
        warm_up=WARM_UP,
    )
    return Profile(
        made=provenance(generator.device),
        settings=settings,
        rates=rates,
        stages=stages,
        strategies=found,
        savings=savings(found),
        budgets=tuple(_kept_budgets(models, search, budgets_ms, report)) if search else (),
    )


def _search(models: Profiled) -> BestOfN:
    """With the first verifier that reads a hidden state or a latent. The prompt is encoded anew each time."""
    verifiers = [verifier for verifier in models.verifiers.values() if Forejudge.takes(verifier)]
    if not verifiers:
        raise InvalidRequest(f"a time budget needs a verifier that reads {Forejudge.needs}: name one")
    return BestOfN(models.generator, verifiers[0], prompts_kept=0)


def _kept_budgets(models: Profiled, search: BestOfN, budgets_ms: Sequence[int], report: Report) -> list[KeptBudget]:
    stopwatch, found = Stopwatch("keeping budgets", 0, len(budgets_ms)), []
    for done, budget_ms in enumerate(budgets_ms, start=1):
        found.append(kept_budget(search, [models.prompt] * SEARCHES, budget_ms, models.sampling))
        report(stopwatch.at(done))
    return found
