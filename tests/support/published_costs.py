"""What the stages of the published models cost, counted once for all tests."""

from dataclasses import replace
from functools import cache

from forejudge.profiling.models import judging_stage
from forejudge.profiling.sizes import PUBLISHED
from forejudge.profiling.stages import CLIP, StageCost, clip_cost, generator_costs, verifier_cost

TERA = 1e12
_SIDE, _WIDTH, _CHANNELS, _CLIP_WIDTH = 32, 2240, 32, 1024


@cache
def published_costs() -> dict[str, StageCost]:
    """As `Profiled.costs` has them, at 1024 px."""
    drawing = generator_costs(PUBLISHED.generator, PUBLISHED.prefix_blocks, _SIDE, PUBLISHED.generator.padded_text)
    sees_pictures, reads_states = PUBLISHED.verifier, replace(PUBLISHED.verifier, vision_tower=None)
    return drawing | {
        CLIP: clip_cost(sees_pictures),
        judging_stage("hidden"): verifier_cost(reads_states, _SIDE, _WIDTH),
        judging_stage("latent"): verifier_cost(reads_states, _SIDE, _CHANNELS),
        judging_stage("clip"): verifier_cost(sees_pictures, _SIDE, _CLIP_WIDTH),
    }
