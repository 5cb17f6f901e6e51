"""A generator without a model library and a collector with it: quick enough to be killed many times."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from PIL import Image

from forejudge.candidates.collect import CandidateCollector
from forejudge.candidates.observers import LabelObserver
from forejudge.errors import InvalidRequest
from forejudge.evaluators.base import Evaluation, Evaluator
from forejudge.generators.base import Architecture, Generator, SamplingParams
from forejudge.noise import noise_batch
from forejudge.prompts.prompt_file import PromptLine
from forejudge.types import IMAGE, NOISE, Candidates, Stage
from forejudge.verifiers.inputs import build_verifier_input

REJECTED_PROMPT = "a prompt of too many words"
ARCHITECTURE = Architecture(
    transformer="StandIn", width=4, num_blocks=4, latent_channels=1, latent_size=2, text_width=1
)


class SeedGenerator(Generator):
    """Images and hidden states are functions of the seed."""

    def __init__(self) -> None:
        self.name, self.architecture, self.fingerprint = "stand-in", ARCHITECTURE, "f00d"
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def check(self, prompt: str, sampling: SamplingParams) -> None:
        if prompt == REJECTED_PROMPT:
            raise InvalidRequest("the prompt has too many words")

    def encode(self, prompt: str, sampling: SamplingParams) -> str:
        return prompt

    def start(self, conditioning: Any, seeds: tuple[int, ...]) -> Candidates:
        return Candidates(seeds, NOISE, {}, None)

    def advance(self, candidates: Candidates, stages: Iterable[Stage]) -> Candidates:
        views: dict[Stage, Any] = {}
        for stage in stages:
            hidden_NTD = noise_batch(candidates.seeds, 0, (4, ARCHITECTURE.width)) + stage.blocks
            views[stage] = self._images(candidates.seeds) if stage == IMAGE else hidden_NTD
        return Candidates(candidates.seeds, max(views), views, None)

    @staticmethod
    def _images(seeds: tuple[int, ...]) -> tuple[Image.Image, ...]:
        return tuple(Image.new("RGB", (4, 4), tuple(seed.to_bytes(4, "big")[1:])) for seed in seeds)


def brightness(image: Image.Image) -> int:
    """Return the last byte of the image's seed."""
    return image.tobytes()[2]


class EvenIsRight(Evaluator):
    """Evaluator that calls images of odd-numbered seeds wrong."""

    name = "even"

    def __call__(self, lines: Sequence[PromptLine], images: Sequence[Image.Image]) -> list[Evaluation]:
        return [Evaluation(brightness(image) % 2 == 0, f"blue {brightness(image)}") for image in images]


def prompt_lines(*prompts: str) -> list[PromptLine]:
    """Return prompts as lines of a JSON lines file."""
    return [
        PromptLine(prompt, f'{{"tag": "counting", "prompt": "{prompt}"}}', f"prompts.jsonl, line {number}")
        for number, prompt in enumerate(prompts, start=1)
    ]


# With 50 candidates each, two prompts make a block: three blocks, the last of one prompt.
FIVE_PROMPTS = prompt_lines("a star", "a disc", "a star", "a ring", "a star")
MANY_PROMPTS = FIVE_PROMPTS * 12


def candidate_collector(
    lines: Sequence[PromptLine] = FIVE_PROMPTS,
    candidates: int = 50,
    record: Sequence[str] = ("hidden:1", "hidden:3"),
    evaluator: Evaluator | None = None,
) -> CandidateCollector:
    """Return the collector that tests share."""
    observer = LabelObserver(evaluator or EvenIsRight())
    verifier_inputs = [build_verifier_input(name) for name in record]
    return CandidateCollector(SeedGenerator(), lines, candidates, 7, observer, verifier_inputs)
