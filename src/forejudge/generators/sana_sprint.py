"""SANA-Sprint (diffusers `SanaSprintPipeline`): one to a few steps of SCM with guidance as an embedding.

The same arithmetic, in the same order, as the pipeline's own call; only it can stop anywhere and go on.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import SanaSprintPipeline, SCMScheduler
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from forejudge.checkpoint import read_config
from forejudge.errors import InvalidRequest
from forejudge.generators.base import Architecture, Generator, Sampling
from forejudge.generators.sana_split import SanaHidden, SanaInput, prefix, run_blocks, suffix
from forejudge.noise import noise_batch
from forejudge.types import NOISE, Candidates, Phase, Stage

if TYPE_CHECKING:
    from forejudge.types import View

MAX_TEXT_TOKENS = 300  # the pipeline's default max_sequence_length
DEFAULTS_FILE = "forejudge.json"


class CallDefaults(BaseModel):
    """What a pipeline's folder may say of how it was trained to be called (in DEFAULTS_FILE)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    complex_human_instruction: list[str] | None


@dataclass(frozen=True)
class SanaConditioning:
    """A prompt, encoded: text (1, L, D), mask (1, L); the step times are angles, the last one 0."""

    text_1LD: Tensor
    mask_1L: Tensor
    times: Tensor
    guidance: float
    latent_shape: tuple[int, int, int]


@dataclass(frozen=True)
class SanaState:
    """Where N candidates stand: in `step`, after `blocks` blocks, or past them with a predicted `clean` latent."""

    conditioning: SanaConditioning
    seeds: tuple[int, ...]
    step: int
    noisy_NCHW: Tensor
    hidden: SanaHidden | None = None
    blocks: int = 0
    clean_NCHW: Tensor | None = None

    def __getitem__(self, rows: list[int]) -> "SanaState":
        return replace(
            self,
            seeds=tuple(self.seeds[row] for row in rows),
            noisy_NCHW=self.noisy_NCHW[rows],
            hidden=None if self.hidden is None else self.hidden[rows],
            clean_NCHW=None if self.clean_NCHW is None else self.clean_NCHW[rows],
        )


class SanaSprint(Generator):
    """Wraps a `SanaSprintPipeline`, which stays as it is."""

    def __init__(self, pipeline: SanaSprintPipeline, name: str) -> None:
        self.pipeline, self.name = pipeline, name
        self.instruction = _instruction(pipeline)
        self.transformer, self.autoencoder = pipeline.transformer, pipeline.vae
        self.sigma = pipeline.scheduler.config.sigma_data
        self.device, self.dtype = self.transformer.device, self.transformer.dtype
        self.architecture = _architecture(pipeline)
        self.fingerprint = _fingerprint(pipeline)

    @torch.no_grad()
    def encode(self, prompt: str, sampling: Sampling) -> SanaConditioning:
        """See `Generator.encode`. A prompt longer than the text encoder takes is refused, not cut."""
        self._check_prompt(prompt)
        text_1LD, mask_1L = self.pipeline.encode_prompt(
            prompt,
            device=self.transformer.device,
            max_sequence_length=MAX_TEXT_TOKENS,
            complex_human_instruction=self.instruction,
        )
        scheduler = SCMScheduler.from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(sampling.steps, device=self.transformer.device, intermediate_timesteps=None)
        shape = self._latent_shape(sampling)
        text_1LD = text_1LD.to(self.transformer.dtype)
        return SanaConditioning(text_1LD, mask_1L, scheduler.timesteps, sampling.guidance_scale, shape)

    def start(self, conditioning: SanaConditioning, seeds: tuple[int, ...]) -> Candidates:
        """See `Generator.start`."""
        noise_NCHW = self._noise(conditioning, seeds, draw=0)
        return Candidates(seeds, NOISE, {}, SanaState(conditioning, seeds, 0, noise_NCHW))

    @torch.no_grad()
    def advance(self, candidates: Candidates, stages: Iterable[Stage]) -> Candidates:
        """See `Generator.advance`."""
        state: SanaState = candidates.state
        views: dict[Stage, View] = dict(candidates.views)
        stage = candidates.stage
        for stage in sorted(stages):
            assert stage >= candidates.stage, f"{stage} lies behind {candidates.stage}"
            state = self._move(state, stage)
            views[stage] = self._view(state, stage)
        return Candidates(candidates.seeds, stage, views, state)

    def _move(self, state: SanaState, stage: Stage) -> SanaState:
        last_step = len(state.conditioning.times) - 2
        step = last_step if stage.phase is Phase.IMAGE else stage.step
        if step > last_step:
            raise InvalidRequest(f"{stage} needs more than the {last_step + 1} steps asked for")
        while state.step < step:
            state = self._next_step(self._finish_step(state))
        if stage.phase is Phase.PREFIX:
            return self._run_prefix(state, stage.blocks)
        return self._finish_step(state) if stage.phase is not Phase.NOISE else state

    def _run_prefix(self, state: SanaState, blocks: int) -> SanaState:
        if state.hidden is None:
            hidden = prefix(self.transformer, self._input(state), blocks)
        else:
            hidden = run_blocks(self.transformer, state.hidden, state.blocks, blocks)
        return replace(state, hidden=hidden, blocks=blocks)

    def _finish_step(self, state: SanaState) -> SanaState:
        """Predict the clean latent: the rest of the blocks, then SCM's step (SCMScheduler.step, trigflow)."""
        if state.clean_NCHW is not None:
            return state
        if state.hidden is None:
            state = self._run_prefix(state, 0)
        assert state.hidden is not None
        output = suffix(self.transformer, state.hidden, state.blocks)
        time, share, model_input = self._times_and_input(state)
        velocity = ((1 - 2 * share) * model_input + (1 - 2 * share + 2 * share**2) * output) / (
            torch.sqrt(share**2 + (1 - share) ** 2)
        )
        velocity = velocity.float() * self.sigma
        clean = torch.cos(time) * state.noisy_NCHW - torch.sin(time) * velocity
        return replace(state, hidden=None, blocks=0, clean_NCHW=clean)

    def _next_step(self, state: SanaState) -> SanaState:
        assert state.clean_NCHW is not None
        time = state.conditioning.times[state.step + 1]
        fresh = self._noise(state.conditioning, state.seeds, draw=state.step + 1)
        noisy = torch.cos(time) * state.clean_NCHW + torch.sin(time) * fresh
        return replace(state, step=state.step + 1, noisy_NCHW=noisy, clean_NCHW=None)

    def _input(self, state: SanaState) -> SanaInput:
        count, conditioning = len(state.seeds), state.conditioning
        _, share, model_input = self._times_and_input(state)
        text_NLD = conditioning.text_1LD.expand(count, -1, -1).contiguous()
        guidance_N = torch.full([count], conditioning.guidance, device=text_NLD.device, dtype=torch.float32).to(
            text_NLD.dtype
        )
        return SanaInput(
            model_input.to(self.transformer.dtype),
            text_NLD,
            conditioning.mask_1L.expand(count, -1).contiguous(),
            share.flatten(),
            guidance_N * self.transformer.config.guidance_embeds_scale,
        )

    def _times_and_input(self, state: SanaState) -> tuple[Tensor, Tensor, Tensor]:
        """The step's angle, the share of noise (N, 1, 1, 1) that stands for it, and the scaled latents."""
        time = state.conditioning.times[state.step]
        angle_N = time.expand(len(state.seeds))
        share = (torch.sin(angle_N) / (torch.cos(angle_N) + torch.sin(angle_N))).view(-1, 1, 1, 1)
        scaled = state.noisy_NCHW / self.sigma * torch.sqrt(share**2 + (1 - share) ** 2)
        return time, share, scaled

    def _noise(self, conditioning: SanaConditioning, seeds: tuple[int, ...], draw: int) -> Tensor:
        noise_NCHW = noise_batch(seeds, draw, conditioning.latent_shape)
        return noise_NCHW.to(self.transformer.device) * self.sigma

    def _view(self, state: SanaState, stage: Stage) -> "View":
        if stage.phase is Phase.PREFIX:
            assert state.hidden is not None
            return state.hidden.hidden_NTD
        if stage.phase is Phase.NOISE:
            return state.noisy_NCHW
        assert state.clean_NCHW is not None
        latents_NCHW = (state.clean_NCHW / self.sigma).to(self.autoencoder.dtype)
        if stage.phase is Phase.LATENT:
            return latents_NCHW
        scaled = latents_NCHW / self.autoencoder.config.scaling_factor
        decoded = self.autoencoder.decode(scaled, return_dict=False)[0]
        return tuple(self.pipeline.image_processor.postprocess(decoded, output_type="pil"))

    def _latent_shape(self, sampling: Sampling) -> tuple[int, int, int]:
        factor, default = self.pipeline.vae_scale_factor, self.architecture.latent_size
        height = sampling.height or default * factor
        width = sampling.width or default * factor
        if height % factor or width % factor:
            raise InvalidRequest(
                f"a picture of {width} x {height} pixels cannot be drawn: both sides must be multiples of {factor}"
            )
        return self.architecture.latent_channels, height // factor, width // factor

    def _check_prompt(self, prompt: str) -> None:
        if not prompt.strip():
            raise InvalidRequest("the prompt is empty: say what the picture should show")
        tokens = self.pipeline.tokenizer(prompt.lower().strip()).input_ids
        if len(tokens) > MAX_TEXT_TOKENS:
            lost = self.pipeline.tokenizer.decode(tokens[MAX_TEXT_TOKENS:])
            raise InvalidRequest(
                f"the prompt has {len(tokens)} tokens and the text encoder takes {MAX_TEXT_TOKENS}; "
                f"this would be cut: {lost[:80]!r}"
            )


def _instruction(pipeline: SanaSprintPipeline) -> list[str] | None:
    """The text that goes before each prompt: the pipeline's own default, or what its folder says instead."""
    path = Path(pipeline.name_or_path) / DEFAULTS_FILE
    if path.is_file():
        return read_config(path, CallDefaults).complex_human_instruction
    default: list[str] = signature(pipeline.__call__).parameters["complex_human_instruction"].default
    return default


def _architecture(pipeline: SanaSprintPipeline) -> Architecture:
    config = pipeline.transformer.config
    return Architecture(
        transformer=type(pipeline.transformer).__name__,
        width=config.num_attention_heads * config.attention_head_dim,
        num_blocks=config.num_layers,
        latent_channels=config.in_channels,
        latent_size=config.sample_size,
        text_width=config.caption_channels,
    )


def _fingerprint(pipeline: SanaSprintPipeline) -> str:
    """A hash of two small tensors, rounded to bfloat16 so that the dtype in use does not matter."""
    digest = hashlib.sha256()
    for weight in (pipeline.transformer.proj_out.weight, pipeline.transformer.scale_shift_table):
        rounded = weight.detach().to("cpu", torch.bfloat16).contiguous()
        digest.update(rounded.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
