"""What the stages of the published models cost, counted once for all tests."""

from dataclasses import replace
from functools import cache

from forejudge.profiling.models import scoring_stage
from forejudge.profiling.sizes import PUBLISHED
from forejudge.profiling.stages import CLIP, StageCost, clip_cost, generator_costs, verifier_cost

TERA = 1e12
_SIDE, _WIDTH, _CHANNELS, _CLIP_WIDTH = 32, 2240, 32, 1024


@cache
def published_costs() -> dict[str, StageCost]:
    """As `ProfiledModels.costs` has them, at 1024 px."""
    generation_costs = generator_costs(
        PUBLISHED.generator, PUBLISHED.num_prefix_blocks, _SIDE, PUBLISHED.generator.padded_text
    )
    clip_sizes, state_sizes = PUBLISHED.verifier, replace(PUBLISHED.verifier, vision_tower=None)
    return generation_costs | {
        CLIP: clip_cost(clip_sizes),
        scoring_stage("hidden"): verifier_cost(state_sizes, _SIDE, _WIDTH),
        scoring_stage("latent"): verifier_cost(state_sizes, _SIDE, _CHANNELS),
        scoring_stage("clip"): verifier_cost(clip_sizes, _SIDE, _CLIP_WIDTH),
    }
