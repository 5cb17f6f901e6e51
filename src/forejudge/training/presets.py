"""Recipes by name: the configuration of every step on the way to a verifier of one generator.

Recipes of published generators follow the paper: 20 labeled candidates per prompt, the hidden state after the same
fraction of the blocks, Qwen2.5-0.5B, class weights. The sizes of the two stages are those of LLaVA, whose recipe the
paper follows without stating its own (Liu et al. 2023).
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from forejudge.errors import InvalidRequest
from forejudge.plugins import registered_configs
from forejudge.training.config import AlignRecipe, CaptionRecipe, LabelRecipe, VerifyRecipe

_PAPER_NUM_PROMPTS = 5900  # times 20 candidates: its 118 k
_PAPER_PREFIX_FRACTION = 8 / 20  # of SANA-Sprint's blocks


class RecipePreset(BaseModel):
    """Recipes of all steps from prompts to a verifier; `prompts` is the number of labeled prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int = Field(gt=0, le=10**9)
    label: LabelRecipe
    caption: CaptionRecipe
    align: AlignRecipe
    verify: VerifyRecipe

    @property
    def generator(self) -> str:
        """Name of the generator that the verifier reads."""
        return self.label.generator


def _paper_preset(generator: str, num_blocks: int, spatial_merge_size: int = 1) -> RecipePreset:
    """Return the paper's recipe; merge neighboring tokens of a generator with more than 1024 of them.

    States are not recorded: 118,000 of them take hundreds of GB, and recomputing each for its single use costs less
    than the training step.
    """
    reads = f"hidden:{round(_PAPER_PREFIX_FRACTION * num_blocks)}"
    shared: dict[str, Any] = {
        "reads": reads,
        "language_model": "Qwen/Qwen2.5-0.5B-Instruct",
        "spatial_merge_size": spatial_merge_size,
        "precision": "bfloat16",
        "gradient_checkpointing": True,
        "gradient_accumulation_steps": 8,
    }
    return RecipePreset(
        prompts=_PAPER_NUM_PROMPTS,
        label=LabelRecipe(generator=generator, evaluator="geneval"),
        caption=CaptionRecipe(generator=generator, captioner="google/gemma-3-4b-it"),
        align=AlignRecipe(
            **shared,
            instruction="<image> Describe this image.",
            steps=2200,
            batch_size=256,
            learning_rate=1e-3,
            warmup_steps=66,
            eval_steps=200,
        ),
        verify=VerifyRecipe(
            **shared,
            steps=920,
            batch_size=128,
            learning_rate=2e-5,
            warmup_steps=28,
            eval_steps=100,
        ),
    )


PRESETS: dict[str, RecipePreset] = {
    "sana-sprint-1.6b": _paper_preset("sana-sprint-1.6b", num_blocks=20),
    "sana-sprint-0.6b": _paper_preset("sana-sprint-0.6b", num_blocks=28),
    "pixart-dmd": _paper_preset("pixart-dmd", num_blocks=28),
    "flux-schnell": _paper_preset("flux-schnell", num_blocks=57, spatial_merge_size=2),  # 4096 tokens
}


def known_presets() -> dict[str, RecipePreset]:
    """Return the recipes by name: those of plug-ins first, then `PRESETS`."""
    return registered_configs(lambda plugin: plugin.recipes, RecipePreset) | PRESETS


def load_preset(name: str) -> RecipePreset:
    """Return the recipe of that name. Raises InvalidRequest for an unknown one."""
    known = known_presets()
    if name not in known:
        raise InvalidRequest(f"unknown recipe {name!r}: expected one of {', '.join(known)}")
    return known[name]
