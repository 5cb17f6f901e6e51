"""The options of `forejudge generate`, as types. None stands for the library's own default, which the help quotes."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from forejudge.budget import DEFAULT_MAX_N, DEFAULT_N

_SEARCH = "How many candidates"
_DRAWING = "How they are drawn"
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

Number = Annotated[int | None, Option("--n", help=f"Candidates (default: {DEFAULT_N}).", rich_help_panel=_SEARCH)]
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
MaxNumber = Annotated[
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

Steps = Annotated[int | None, Option(help="Denoising steps (default: 1).", rich_help_panel=_DRAWING)]
GuidanceScale = Annotated[
    float | None,
    Option(help="How strictly the prompt is followed (default: the generator's own).", rich_help_panel=_DRAWING),
]
Height = Annotated[int | None, Option(help="In pixels (default: the generator's own).", rich_help_panel=_DRAWING)]
Width = Annotated[int | None, Option(help="In pixels (default: the generator's own).", rich_help_panel=_DRAWING)]
LoraScale = Annotated[
    float | None, Option(help="Weight of the pipeline's LoRA adapters (default: 1).", rich_help_panel=_DRAWING)
]

Out = Annotated[Path, Option(metavar="DIR", help="The folder to write to.", rich_help_panel=_OUTPUT)]
Everything = Annotated[
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
JudgeStep = Annotated[
    int | None,
    Option(help="The step in which candidates are judged, counted from 0 (default: 0).", rich_help_panel=_DRAWING),
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
