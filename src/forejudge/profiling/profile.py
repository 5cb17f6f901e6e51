"""The whole profile: rates of the device, every stage by itself, and every way to pick the best as a whole."""

from collections.abc import Sequence

from forejudge.device import dtype_name
from forejudge.profiling.comparison import savings
from forejudge.profiling.device_rates import device_rates
from forejudge.profiling.profile_figures import WARM_UP, Profile, Settings
from forejudge.profiling.profiled import Profiled
from forejudge.profiling.stage_profile import stage_figures
from forejudge.profiling.strategy_profile import new_strategies, strategy_figures
from forejudge.progress import Report
from forejudge.provenance import provenance

_ON_CPU = "of a CPU: they say nothing of a GPU"
_ON_GPU = "of a GPU, by its own clock"


def profile(models: Profiled, ns: Sequence[int], rounds: int, strategies: Sequence[str], report: Report) -> Profile:
    """Measure with each of `ns` candidates, in so many rounds; for `strategies` see `new_strategies`.

    Raises InvalidRequest for a strategy that cannot be run and for a size that the generator cannot draw.
    """
    generator = models.generator
    conditioning = models.conditioning
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
    )
