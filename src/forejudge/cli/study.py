"""`forejudge study`: how much one choice of a verifier's training matters, for any generator."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from forejudge.cli.common import echo, hold_output
from forejudge.cli.train import Changes, Device, Dtype, Generator, RecipeName, training_session
from forejudge.options import MAX_COUNT


def study(
    choice: Annotated[str, Argument(help="Choice to compare: layers, loss, pooling, data, llm or captions.")],
    labels: Annotated[Path, Option(help="Labeled candidates with recorded states (`forejudge label --record ...`).")],
    out: Annotated[Path, Option(help="Folder for CHOICE.json, CHOICE.png and the runs; a stopped study continues.")],
    validation: Annotated[
        Path | None,
        Option(help="Labeled candidates of held-out prompts (default: a fifth of the prompts of --labels)."),
    ] = None,
    captions: Annotated[
        Path | None, Option(help="Captioned candidates, for alignment before each training (default: no alignment).")
    ] = None,
    values: Annotated[
        str | None,
        Option(
            metavar="LIST",
            help="Values to compare, such as hidden:4,hidden:8 (default: the recorded layers, every loss, 1, 2 and 4 "
            "states a side, a sixteenth, a quarter and all of the labels, or new, original and no captions).",
        ),
    ] = None,
    training_seeds: Annotated[
        int, Option(min=1, max=MAX_COUNT, help="Trainings of each variant, with seeds from 0.")
    ] = 3,
    steps: Annotated[int | None, Option(min=1, help="Steps of each training (default: the recipe's).")] = None,
    align_steps: Annotated[int | None, Option(min=1, help="Steps of each alignment (default: the recipe's).")] = None,
    generator: Generator = None,
    recipe: RecipeName = "miniature",
    changes: Changes = None,
    device: Device = None,
    dtype: Dtype = "auto",
) -> None:
    """Train verifiers that differ in one choice, and compare how they rank candidates of held-out prompts."""
    from forejudge.cli.tables import print_study
    from forejudge.errors import MissingExtra
    from forejudge.training.config import apply_changes, with_changes
    from forejudge.training.dataset import TrainingData
    from forejudge.training.presets import load_preset
    from forejudge.training.study import Study, StudyInputs, study_variants

    preset = load_preset(recipe)
    verify = apply_changes(preset.verify, [*(changes or []), *([f"steps={steps}"] if steps else [])])
    align = with_changes(preset.align, steps=align_steps or preset.align.steps)
    hold_output(out)
    with training_session(generator or preset.generator, device, dtype) as (loaded, progress):
        data = TrainingData.of(labels, validation, loaded)
        captioned = TrainingData.of(captions, None, loaded) if captions else None
        inputs = StudyInputs(loaded, align, verify, data, captioned, out, progress)
        listed = [value for value in (values or "").split(",") if value]
        variants = study_variants(choice, listed, verify, data, loaded, captioned is not None)
        report = Study(choice, variants, inputs, training_seeds).run()
    report.write(out / f"{choice}.json")
    print_study(report)
    try:
        from forejudge.report.study_plot import write_study_plot

        write_study_plot(report, out / f"{choice}.png")
    except MissingExtra as error:
        return echo(f"written to {out / choice}.json; no plot: {error}")
    echo(f"written to {out / choice}.json and .png")
