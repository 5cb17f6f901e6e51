"""SANA-Sprint (diffusers `SanaSprintPipeline`): one to a few steps of SCM with guidance as an embedding.

The same arithmetic, in the same order, as the pipeline's own call; only it can stop anywhere and go on.
"""

import hashlib
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import SanaSprintPipeline, SCMScheduler
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from forejudge.checkpoint import read_config, rounded_bytes
from forejudge.errors import InvalidRequest
from forejudge.generators.base import Architecture, Generator, Sampling
from forejudge.generators.sana_split import SanaHidden, SanaInput, prefix, run_blocks, suffix
from forejudge.generators.scm import clean_latents, model_input, noise_share, noised_again
from forejudge.noise import noise_batch
from forejudge.types import NOISE, Candidates, Phase, Stage

if TYPE_CHECKING:
    from forejudge.types import View

MAX_TEXT_TOKENS = 300  # the pipeline's default max_sequence_length
DEFAULTS_FILE = "forejudge.json"
_SIDE_UNIT = 32  # the pipeline refuses sides that are no multiple of it


class CallDefaults(BaseModel):
    """What a pipeline's folder may say of how it was trained to be called (in DEFAULTS_FILE)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    complex_human_instruction: list[str] | None


@dataclass(frozen=True)
class SanaConditioning:
    """A prompt, encoded, with N = 1: text (1, L, D), mask (1, L), guidance (1,); times are angles, the last one 0."""

    text_NLD: Tensor
    mask_NL: Tensor
    guidance_N: Tensor
    times: Tensor
    latent_shape: tuple[int, int, int]

    @property
    def last_step(self) -> int:
        """The step that ends at the picture, counted from 0."""
        return len(self.times) - 2


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

    @property
    def angle(self) -> Tensor:
        """The time at which the present step starts."""
        return self.conditioning.times[self.step]


class SanaSprint(Generator):
    """Wraps a `SanaSprintPipeline`, which stays as it is."""

    def __init__(self, pipeline: SanaSprintPipeline, name: str) -> None:
        self.name, self.instruction = name, _instruction(pipeline)
        # Encoding sets the tokenizer's padding side: a pipeline of our own around the same models, with its own one.
        self.pipeline = SanaSprintPipeline(**pipeline.components | {"tokenizer": copy(pipeline.tokenizer)})
        self.transformer, self.autoencoder = pipeline.transformer, pipeline.vae
        self.sigma = pipeline.scheduler.config.sigma_data
        self.device, self.dtype = self.transformer.device, self.transformer.dtype
        self.architecture = _architecture(pipeline)
        self.fingerprint = _fingerprint(pipeline)

    @torch.no_grad()
    def encode(self, prompt: str, sampling: Sampling) -> SanaConditioning:
        """See `Generator.encode`. A prompt longer than the text encoder takes is refused, not cut."""
        self._check_prompt(prompt)
        shape = self._latent_shape(sampling)
        text_NLD, mask_NL = self.pipeline.encode_prompt(
            prompt,
            device=self.device,
            max_sequence_length=MAX_TEXT_TOKENS,
            complex_human_instruction=self.instruction,
        )
        # Rounded to the text's dtype before it is scaled, as the pipeline does.
        guidance_N = torch.full([1], sampling.guidance_scale, device=self.device).to(text_NLD.dtype)
        scheduler = SCMScheduler.from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(sampling.steps, device=self.device, intermediate_timesteps=None)
        return SanaConditioning(
            text_NLD.to(self.dtype),
            mask_NL,
            guidance_N * self.transformer.config.guidance_embeds_scale,
            scheduler.timesteps,
            shape,
        )

    def trim(self, conditioning: SanaConditioning) -> SanaConditioning:
        """See `Generator.trim`. Masked tokens are left out of attention; they are all at the end."""
        length = int(conditioning.mask_NL.sum())
        text_NLD, mask_NL = conditioning.text_NLD[:, :length], conditioning.mask_NL[:, :length]
        return replace(conditioning, text_NLD=text_NLD, mask_NL=mask_NL)

    def start(
        self, conditioning: SanaConditioning, seeds: tuple[int, ...], *, noise_NCHW: Tensor | None = None
    ) -> Candidates:
        """See `Generator.start`. Standard normal noise that is given takes the place of what the seeds draw first."""
        if noise_NCHW is None:
            noise_NCHW = noise_batch(seeds, 0, conditioning.latent_shape)
        noisy_NCHW = noise_NCHW.to(self.device) * self.sigma
        return Candidates(seeds, NOISE, {}, SanaState(conditioning, seeds, 0, noisy_NCHW))

    @torch.no_grad()
    def advance(self, candidates: Candidates, stages: Iterable[Stage]) -> Candidates:
        """See `Generator.advance`."""
        state: SanaState = candidates.state
        views: dict[Stage, View] = dict(candidates.views)
        stage = candidates.stage
        for stage in sorted(stages):
            assert stage >= candidates.stage, f"{stage} lies behind {candidates.stage}"
            if stage not in views:
                state = self._move(state, stage)
                views[stage] = self._view(state, stage)
        return Candidates(candidates.seeds, stage, views, state)

    def _move(self, state: SanaState, stage: Stage) -> SanaState:
        last_step = state.conditioning.last_step
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
        """Predict the clean latent: the rest of the blocks, then SCM's step."""
        if state.clean_NCHW is not None:
            return state
        if state.hidden is None:
            state = self._run_prefix(state, 0)
        assert state.hidden is not None
        output_NCHW = suffix(self.transformer, state.hidden, state.blocks)
        clean_NCHW = clean_latents(output_NCHW, state.noisy_NCHW, state.angle, self.sigma)
        return replace(state, hidden=None, blocks=0, clean_NCHW=clean_NCHW)

    def _next_step(self, state: SanaState) -> SanaState:
        assert state.clean_NCHW is not None
        fresh_NCHW = self._noise(state.conditioning, state.seeds, draw=state.step + 1)
        following = replace(state, step=state.step + 1, clean_NCHW=None)
        return replace(following, noisy_NCHW=noised_again(state.clean_NCHW, fresh_NCHW, following.angle))

    def _input(self, state: SanaState) -> SanaInput:
        count, conditioning = len(state.seeds), state.conditioning
        share_N = noise_share(state.angle.expand(count))
        return SanaInput(
            model_input(state.noisy_NCHW, share_N, self.sigma).to(self.dtype),
            conditioning.text_NLD.expand(count, -1, -1).contiguous(),
            conditioning.mask_NL.expand(count, -1).contiguous(),
            share_N,
            conditioning.guidance_N.expand(count),
        )

    def _noise(self, conditioning: SanaConditioning, seeds: tuple[int, ...], draw: int) -> Tensor:
        return noise_batch(seeds, draw, conditioning.latent_shape).to(self.device) * self.sigma

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
        scaled_NCHW = latents_NCHW / self.autoencoder.config.scaling_factor
        decoded_NCHW = self.autoencoder.decode(scaled_NCHW, return_dict=False)[0]
        return tuple(self.pipeline.image_processor.postprocess(decoded_NCHW, output_type="pil"))

    def _latent_shape(self, sampling: Sampling) -> tuple[int, int, int]:
        factor, default = self.pipeline.vae_scale_factor, self.architecture.latent_size
        height = sampling.height or default * factor
        width = sampling.width or default * factor
        unit = max(factor, _SIDE_UNIT)
        if height % unit or width % unit:
            raise InvalidRequest(
                f"a picture of {width} x {height} pixels cannot be drawn: both sides must be multiples of {unit}"
            )
        return self.architecture.latent_channels, height // factor, width // factor

    def _check_prompt(self, prompt: str) -> None:
        if not prompt.strip():
            raise InvalidRequest("the prompt is empty: say what the picture should show")
        instruction = "\n".join(self.instruction or [])
        tokens = self.pipeline.tokenizer(instruction + prompt.lower().strip()).input_ids
        # The pipeline takes two tokens less where an instruction goes before the prompt.
        before = len(self.pipeline.tokenizer(instruction).input_ids) - 2 if instruction else 0
        lost = tokens[before + MAX_TEXT_TOKENS :]
        if lost:
            raise InvalidRequest(
                f"the prompt has {len(tokens) - before} tokens and the text encoder takes {MAX_TEXT_TOKENS}; "
                f"this would be cut: {self.pipeline.tokenizer.decode(lost)[:80]!r}"
            )


def _instruction(pipeline: SanaSprintPipeline) -> list[str] | None:
    """The text that goes before each prompt: the pipeline's own default, or what its folder says instead."""
    folder = pipeline.name_or_path  # None where it was put together from parts
    if folder and (path := Path(folder) / DEFAULTS_FILE).is_file():
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
    """A hash of two small tensors."""
    digest = hashlib.sha256()
    for weight in (pipeline.transformer.proj_out.weight, pipeline.transformer.scale_shift_table):
        digest.update(rounded_bytes(weight))
    return digest.hexdigest()[:16]
