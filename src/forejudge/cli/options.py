"""The options of `forejudge generate`, as types. None stands for the library's own default, which the help quotes."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from forejudge.errors import InvalidRequest
from forejudge.policies import DEFAULT_MAX_N, DEFAULT_N

# FOLDED: The options that say who judges pictures, and with what.


_EVALUATOR = (
    "geneval, geneval-miniature, vqa:MODEL (an image-text-to-text model, a folder or hub id, that is asked whether a "
    "picture shows its prompt), classifier-miniature:FOLDER (of a build of the miniature), or a command: for each JSON "
    "line on its stdin with image (a path), prompt and metadata, it answers with a JSON line that has correct (true or "
    "false), and may have reason and detections."
)
Evaluator = Annotated[str, Option(metavar="NAME|COMMAND", help=_EVALUATOR)]
RecipeEvaluator = Annotated[
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


# FOLDED: Lists of numbers as options spell them.


def parse_ints(option: str, text: str) -> list[int]:
    """Sorted, each once. Raises InvalidRequest unless all are whole numbers from 1."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise InvalidRequest(f"{option} {text!r} is not a list of numbers from 1, such as 1,2,4,8")
    return numbers


_SEARCH = "How many candidates"
_SAMPLING = "How they are drawn"
_OUTPUT = "What is written and shown"
_MODELS = "Models and where they run"

Prompt = Annotated[str | None, Argument(metavar="PROMPT", help="What the picture should show.", show_default=False)]
PromptsFile = Annotated[
    Path | None,
    Option(
        "--prompts",
        metavar="FILE",
        help="Many prompts instead of one: a text file with a prompt a line (blank lines are skipped), or .jsonl with "
        'a "prompt" in every line. They are written in GenEval\'s layout; a run that was stopped goes on where it was.',
    ),
]

NumCandidates = Annotated[
    int | None, Option("--n", help=f"Candidates (default: {DEFAULT_N}).", rich_help_panel=_SEARCH)
]
BudgetMs = Annotated[
    float | None,
    Option(
        help="As many candidates as fit into so many milliseconds, from the prompt to the finished pictures.",
        rich_help_panel=_SEARCH,
    ),
]
Until = Annotated[
    float | None,
    Option(help="Stop at the first candidate that fits with this probability.", rich_help_panel=_SEARCH),
]
MaxCandidates = Annotated[
    int | None,
    Option(
        "--max-n",
        help=f"The most candidates for --budget-ms and --until (default: {DEFAULT_MAX_N}).",
        rich_help_panel=_SEARCH,
    ),
]
Seed = Annotated[
    int | None,
    Option(help="The run's seed, from which each candidate's follows (default: 0).", rich_help_panel=_SEARCH),
]
Seeds = Annotated[
    str | None,
    Option(metavar="LIST", help="The candidates' own seeds, with commas between.", rich_help_panel=_SEARCH),
]
TopK = Annotated[int | None, Option(help="Pictures to finish, the best ones (default: 1).", rich_help_panel=_SEARCH)]
ImagesPerPrompt = Annotated[
    int, Option(help="Pictures of each prompt, each of them a best of N.", rich_help_panel=_SEARCH)
]

Steps = Annotated[int | None, Option(help="Denoising steps (default: 1).", rich_help_panel=_SAMPLING)]
GuidanceScale = Annotated[
    float | None,
    Option(help="How strictly the prompt is followed (default: the generator's own).", rich_help_panel=_SAMPLING),
]
Height = Annotated[int | None, Option(help="In pixels (default: the generator's own).", rich_help_panel=_SAMPLING)]
Width = Annotated[int | None, Option(help="In pixels (default: the generator's own).", rich_help_panel=_SAMPLING)]
LoraScale = Annotated[
    float | None, Option(help="Weight of the pipeline's LoRA adapters (default: 1).", rich_help_panel=_SAMPLING)
]

Out = Annotated[Path, Option(metavar="DIR", help="The folder to write to.", rich_help_panel=_OUTPUT)]
FinishAll = Annotated[
    bool, Option("--all", help="Finish every candidate and make a contact sheet.", rich_help_panel=_OUTPUT)
]
AsJson = Annotated[bool, Option("--json", help="Print the result as JSON and nothing else.", rich_help_panel=_OUTPUT)]

Generator = Annotated[
    str | None,
    Option(
        help="A name that `forejudge models` lists, a folder, or a hub id as owner/model or owner/model@revision "
        "(default: miniature); options of the generator may follow, as in NAME,max_timesteps=1.5.",
        rich_help_panel=_MODELS,
    ),
]
Verifier = Annotated[
    str | None, Option(help="A name, a folder or a hub id (default: the generator's own).", rich_help_panel=_MODELS)
]
VerifierStep = Annotated[
    int | None,
    Option(help="The step in which candidates are judged, counted from 0 (default: 0).", rich_help_panel=_SAMPLING),
]
Device = Annotated[
    str | None,
    Option(help="cpu, cuda, cuda:1, mps, ... (default: cuda or mps if there is one).", rich_help_panel=_MODELS),
]
Dtype = Annotated[
    str | None,
    Option(
        help="auto, float32, bfloat16 or float16 (default: auto). Auto is bfloat16 on NVIDIA GPUs from Ampere on, "
        "float32 elsewhere.",
        rich_help_panel=_MODELS,
    ),
]
BatchSize = Annotated[
    int | None, Option(help="The most candidates drawn at once (default: what fits).", rich_help_panel=_MODELS)
]
Compile = Annotated[
    bool,
    Option(
        "--compile",
        help="Compile the models: the first candidates take up to a minute longer, all others less time.",
        rich_help_panel=_MODELS,
    ),
]
Offload = Annotated[
    str | None,
    Option(
        metavar="text-encoder",
        help="Keep the generator's text encoders on the CPU but for while they encode: slower, in less memory of the "
        "device.",
        rich_help_panel=_MODELS,
    ),
]
