"""Recipe of the miniature: every size, step count and seed that decides its weights."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from forejudge.config_files import read_config
from forejudge.errors import InvalidRequest
from forejudge.files import write_text
from forejudge.training.config import AlignRecipe, VerifyRecipe, with_changes
from forejudge.training.presets import load_preset
from research.miniature.train import TrainingSettings


class _Recipe(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GeneratorRecipe(_Recipe):
    """Size and training of the transformer and its text encoder: first shallow, then with all its blocks."""

    shallow_blocks: PositiveInt = 12
    blocks: PositiveInt = 24
    width: PositiveInt = 128
    compiled: bool = True
    shallow: TrainingSettings = TrainingSettings(
        steps=3700, batch_size=48, learning_rate=2e-3, ema_decay=0.998, warmup_steps=200
    )
    deep: TrainingSettings = TrainingSettings(
        steps=1300, batch_size=48, learning_rate=1e-3, ema_decay=0.995, warmup_steps=100
    )


class LanguageModelRecipe(_Recipe):
    """Size and pre-training of the language model."""

    width: PositiveInt = 128
    layers: PositiveInt = 3
    settings: TrainingSettings = TrainingSettings(
        steps=1000, batch_size=64, learning_rate=3e-3, ema_decay=0.99, warmup_steps=50, weight_decay=0.05
    )


class ClipRecipe(_Recipe):
    """Size and training of CLIP, the baselines' image encoder; both towers have one size."""

    width: PositiveInt = 128
    layers: PositiveInt = 4
    settings: TrainingSettings = TrainingSettings(
        steps=800, batch_size=96, learning_rate=1e-3, ema_decay=0.99, warmup_steps=100, weight_decay=0.05
    )


class ClassifierRecipe(_Recipe):
    """Size and training of the classifier, the second evaluator; its channels grow from `width` fourfold."""

    width: PositiveInt = 32
    settings: TrainingSettings = TrainingSettings(
        steps=850, batch_size=64, learning_rate=3e-3, ema_decay=0.99, warmup_steps=50, weight_decay=0.05
    )


class TinyDecoderRecipe(_Recipe):
    """Size and training of the tiny decoder; `blocks` counts those at each size, from the latents' to the images'.

    `training_rows` and `held_out_rows` count the labeled candidates that it learns from and is measured on.
    """

    width: PositiveInt = 16
    blocks: tuple[NonNegativeInt, ...] = (3, 2, 1, 0)
    training_rows: PositiveInt = 8192
    held_out_rows: PositiveInt = 1000
    settings: TrainingSettings = TrainingSettings(
        steps=2500, batch_size=16, learning_rate=4e-3, ema_decay=0.99, warmup_steps=100
    )


class VerifierPartRecipe(_Recipe):
    """Counts of labeled and captioned candidates, and training of the shipped verifiers on them.

    `recorded` are the verifier inputs that are stored while labeling; every verifier that is trained later reads one of
    them or one derived from them, also the `baselines`, which are inputs by name.
    """

    training_prompts: PositiveInt = 8000
    validation_prompts: PositiveInt = 300
    candidates_per_prompt: PositiveInt = 8
    captioned_prompts: PositiveInt = 1500
    captioned_candidates_per_prompt: PositiveInt = 8
    recorded: tuple[str, ...] = ("hidden:12", "hidden:24", "latent", "clip")
    baselines: dict[str, str] = {"last-block": "hidden:24", "latent": "latent", "clip": "clip", "preview": "preview"}
    align: AlignRecipe = Field(default_factory=lambda: load_preset("miniature").align)
    verify: VerifyRecipe = Field(default_factory=lambda: load_preset("miniature").verify)
    cross_attention: VerifyRecipe = Field(default_factory=lambda: load_preset("miniature-cross-attention").verify)


class Recipe(_Recipe):
    """The whole miniature. Equal recipes give equal weights on equal devices."""

    seed: int = 0
    autoencoder: TrainingSettings = TrainingSettings(
        steps=1500, batch_size=32, learning_rate=2e-3, ema_decay=0.995, warmup_steps=100
    )
    generator: GeneratorRecipe = GeneratorRecipe()
    language_model: LanguageModelRecipe = LanguageModelRecipe()
    clip: ClipRecipe = ClipRecipe()
    classifier: ClassifierRecipe = ClassifierRecipe()
    tiny_decoder: TinyDecoderRecipe = TinyDecoderRecipe()
    verifier: VerifierPartRecipe = VerifierPartRecipe()


def save_recipe(folder: Path, recipe: _Recipe) -> None:
    """Record the recipe of a folder. Raises InvalidRequest where it was begun with another recipe."""
    path = folder / "recipe.json"
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists() and read_config(path, type(recipe)) != recipe:
        raise InvalidRequest(f"{path} holds another recipe: build in another folder")
    write_text(path, recipe.model_dump_json(indent=2) + "\n")


def miniature() -> Recipe:
    """Return the recipe of the shipped miniature."""
    return Recipe()


def small_generator_recipe() -> GeneratorRecipe:
    """Return a generator of other width and depth than the shipped one, trained for a shorter time: for studies."""
    return GeneratorRecipe(
        shallow_blocks=8,
        blocks=16,
        width=96,
        shallow=TrainingSettings(steps=2500, batch_size=48, learning_rate=2e-3, ema_decay=0.998, warmup_steps=200),
        deep=TrainingSettings(steps=900, batch_size=48, learning_rate=1e-3, ema_decay=0.995, warmup_steps=100),
    )


def tiny_recipe() -> Recipe:
    """Return a recipe that builds every part in seconds, for tests; its images show nothing."""
    short = TrainingSettings(steps=20, batch_size=8, learning_rate=1e-3, warmup_steps=5, checkpoint_seconds=1.0)
    few = {"steps": 6, "batch_size": 8, "eval_steps": 3, "reads": "hidden:2"}
    return Recipe(
        autoencoder=short,
        generator=GeneratorRecipe(shallow_blocks=2, blocks=4, width=64, compiled=False, shallow=short, deep=short),
        language_model=LanguageModelRecipe(width=32, layers=1, settings=short),
        clip=ClipRecipe(width=32, layers=2, settings=short),
        classifier=ClassifierRecipe(width=8, settings=short),
        tiny_decoder=TinyDecoderRecipe(width=8, blocks=(1, 0, 0, 0), training_rows=16, held_out_rows=8, settings=short),
        verifier=VerifierPartRecipe(
            training_prompts=12,
            validation_prompts=6,
            candidates_per_prompt=2,
            captioned_prompts=4,
            captioned_candidates_per_prompt=2,
            recorded=("hidden:2", "latent", "clip"),
            baselines={"clip": "clip", "preview": "preview"},
            align=with_changes(load_preset("miniature").align, **few),
            verify=with_changes(load_preset("miniature").verify, **few),
            cross_attention=with_changes(load_preset("miniature-cross-attention").verify, **few),
        ),
    )
