"""The options that say who judges pictures, and with what."""

from typing import Annotated

from typer import Option

_EVALUATOR = (
    "geneval, geneval-miniature, vqa:MODEL (an image-text-to-text model, a folder or hub id, that is asked whether a "
    "picture shows its prompt), classifier-miniature:FOLDER (of a build of the miniature), or a command: for each JSON "
    "line on its stdin with image (a path), prompt and metadata, it answers with a JSON line that has correct (true or "
    "false), and may have reason and detections."
)
Evaluator = Annotated[str, Option(metavar="NAME|COMMAND", help=_EVALUATOR)]
EvaluatorOfRecipe = Annotated[
    str | None,
    Option("--evaluator", metavar="NAME|COMMAND", help=f"{_EVALUATOR} (Default: the recipe's.)"),
]
OptionalEvaluator = Annotated[
    str | None,
    Option("--evaluator", metavar="NAME|COMMAND", help=f"{_EVALUATOR} (Default: the benchmark's own.)"),
]
SecondEvaluators = Annotated[
    list[str] | None,
    Option(
        "--second-evaluator",
        metavar="NAME|COMMAND",
        help="Another evaluator that judges the same pictures, as --evaluator takes it; repeatable. Its figures stand "
        "beside the first one's.",
    ),
]
Detector = Annotated[
    str | None,
    Option(
        metavar="DIR",
        help="The detector of geneval, made by `forejudge geneval convert-detector`. Another Mask2Former, as a folder "
        "or hub id, gives figures that are not comparable.",
    ),
]
ColorModel = Annotated[
    str | None,
    Option(
        metavar="DIR|ID",
        help="The CLIP that tells colors for geneval (default: openai/clip-vit-large-patch14).",
    ),
]
