"""What the miniature is built from: every size, step count and seed that decides its weights."""

from pydantic import BaseModel, ConfigDict, PositiveInt

from forejudge.miniature.training_loop import TrainingSettings


class _Recipe(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GeneratorRecipe(_Recipe):
    """Size and training of the transformer and its text encoder; `draft_after` blocks the drafting head reads."""

    blocks: PositiveInt = 12
    width: PositiveInt = 128
    draft_after: PositiveInt = 6
    compiled: bool = True
    settings: TrainingSettings = TrainingSettings(
        steps=3700, batch_size=48, learning_rate=2e-3, average_decay=0.998, warmup_steps=200
    )


class VerifierTraining(_Recipe):
    """Size of a verifier's language model, and its training."""

    width: PositiveInt
    layers: PositiveInt
    settings: TrainingSettings


class VerifierPartRecipe(_Recipe):
    """Labels and training of the verifiers: the shipped one, and smaller ones by which cuts are compared."""

    training_groups: PositiveInt = 3000
    validation_groups: PositiveInt = 300
    candidates_each: PositiveInt = 8
    shipped_cut: PositiveInt = 6
    shipped: VerifierTraining = VerifierTraining(
        width=128,
        layers=3,
        settings=TrainingSettings(
            steps=2500, batch_size=64, learning_rate=1.5e-3, average_decay=0.99, warmup_steps=50, weight_decay=0.05
        ),
    )
    compared_cuts: tuple[PositiveInt, ...] = (12, 6, 8, 4)
    compared: VerifierTraining = VerifierTraining(
        width=96,
        layers=2,
        settings=TrainingSettings(steps=750, batch_size=64, learning_rate=1.5e-3, average_decay=0.99, warmup_steps=50),
    )

    @property
    def cuts(self) -> tuple[int, ...]:
        """All cuts at which states are recorded."""
        return tuple(sorted({self.shipped_cut, *self.compared_cuts}))


class Recipe(_Recipe):
    """The whole miniature. Equal recipes give equal weights on equal devices."""

    seed: int = 0
    autoencoder: TrainingSettings = TrainingSettings(
        steps=1500, batch_size=32, learning_rate=2e-3, average_decay=0.995, warmup_steps=100
    )
    generator: GeneratorRecipe = GeneratorRecipe()
    verifier: VerifierPartRecipe = VerifierPartRecipe()


def miniature() -> Recipe:
    """The shipped miniature."""
    return Recipe()


def shrunken() -> Recipe:
    """Every part of the build in seconds, for tests: draws nothing worth looking at."""
    short = {"checkpoint_seconds": 1.0, "warmup_steps": 5, "learning_rate": 1e-3}
    tiny_verifier = VerifierTraining(width=32, layers=1, settings=TrainingSettings(steps=6, batch_size=8, **short))
    return Recipe(
        autoencoder=TrainingSettings(steps=20, batch_size=8, **short),
        generator=GeneratorRecipe(
            blocks=4,
            width=64,
            draft_after=2,
            compiled=False,
            settings=TrainingSettings(steps=20, batch_size=8, **short),
        ),
        verifier=VerifierPartRecipe(
            training_groups=12,
            validation_groups=6,
            candidates_each=2,
            shipped_cut=2,
            shipped=tiny_verifier,
            compared_cuts=(1,),
            compared=tiny_verifier,
        ),
    )
