"""Costs of the stages of the published models, counted once for all tests."""

from functools import cache

import torch

from forejudge.profiling.measure import StageCost
from forejudge.profiling.sizes import KINDS, random_models

TERA = 1e12


@cache
def published_costs() -> dict[str, StageCost]:
    """Count `ProfiledModels.padded_costs` of SANA-Sprint 1.6B in bfloat16 at 1024 px."""
    models = random_models("sana-sprint-1.6b", KINDS, None, torch.device("meta"), torch.bfloat16)
    return models.padded_costs
