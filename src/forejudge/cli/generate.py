"""`forejudge generate`: from options to a request, and to one prompt or many."""

from pathlib import Path

from forejudge.cli import options
from forejudge.cli.request import ModelOptions, Request, SamplingOptions, SearchOptions, parse_seeds
from forejudge.errors import InvalidRequest


def generate(
    prompt: options.Prompt = None,
    prompts: options.PromptsFile = None,
    n: options.Number = None,
    budget_ms: options.BudgetMs = None,
    until: options.Until = None,
    max_n: options.MaxNumber = None,
    seed: options.Seed = None,
    seeds: options.Seeds = None,
    top_k: options.TopK = None,
    images_per_prompt: options.ImagesPerPrompt = 1,
    steps: options.Steps = None,
    guidance_scale: options.GuidanceScale = None,
    height: options.Height = None,
    width: options.Width = None,
    lora_scale: options.LoraScale = None,
    judge_step: options.JudgeStep = None,
    out: options.Out = Path("forejudge-out"),
    everything: options.Everything = False,
    as_json: options.AsJson = False,
    generator: options.Generator = None,
    verifier: options.Verifier = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    offload: options.Offload = None,
    compiled: options.Compile = False,
) -> None:
    """Draw candidates of a prompt, judge them early, finish the best and write it to a folder."""
    request = Request(
        ModelOptions(generator, verifier, device, dtype, batch_size, judge_step, offload, compiled),
        SamplingOptions(steps, guidance_scale, height, width, lora_scale),
        SearchOptions(n, budget_ms, until, max_n, seed, parse_seeds(seeds), top_k),
        images_per_prompt,
        everything,
    )
    request.check()
    if prompts is not None:
        _refuse_with_prompts(prompt=prompt is not None, top_k=top_k is not None, all=everything)
        from forejudge.cli.many_prompts import generate_many

        generate_many(prompts, request, out, as_json)
    elif prompt is not None:
        from forejudge.cli.one_prompt import generate_one

        generate_one(prompt, request, out, as_json)
    else:
        raise InvalidRequest("no prompt: give one in quotes, or a file of them with --prompts")


def _refuse_with_prompts(**options: bool) -> None:
    for name in (name for name, is_given in options.items() if is_given):
        raise InvalidRequest(
            f"{name.replace('_', '-')} cannot go with --prompts, which writes the winner of each image"
        )
