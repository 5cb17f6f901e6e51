"""Any diffusers text-to-image pipeline as a black box: from a prompt and a seed to an image, with no stage between."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from forejudge.checkpoint import checkpoint_errors, first_line, quiet_libraries
from forejudge.errors import InvalidRequest
from forejudge.files import is_dir
from forejudge.generators.base import Generator, SamplingParams
from forejudge.generators.digest import ModelDigests, pipeline_digest
from forejudge.generators.text_encoding import check_text
from forejudge.hub import split_revision
from forejudge.library_models import only_variant
from forejudge.types import IMAGE, NOISE, Candidates, Stage


@dataclass(frozen=True)
class _PipelineCall:
    """Arguments of the pipeline's call; there is no state to continue from."""

    prompt: str
    sampling: SamplingParams

    def __getitem__(self, rows: list[int]) -> "_PipelineCall":
        return self


class BlackBox(Generator):
    """A baseline without a verifier: the pipeline's own call goes from noise to the image in one piece."""

    def __init__(self, pipeline: Any, name: str) -> None:
        self.pipeline, self.name = pipeline, name
        self.device = pipeline.device
        self.dtype = pipeline.dtype
        self._known_digests: ModelDigests = {}

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """See `Generator.fingerprint`."""
        return pipeline_digest(self.pipeline, self.options, self._known_digests)

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device, dtype: torch.dtype) -> "BlackBox":
        """Load a folder or hub id, which may name a revision. Raises CheckpointError."""
        from diffusers import DiffusionPipeline

        model, revision = (name, None) if is_dir(name) else split_revision(name)
        variant = next((found for part in Path(model).glob("*/") if (found := only_variant(part))), None)
        with checkpoint_errors(Path(name)), quiet_libraries():
            pipeline = DiffusionPipeline.from_pretrained(
                model, revision=revision, variant=variant, dtype=dtype, use_safetensors=True
            )
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline.to(device), name)

    def check(self, prompt: str, sampling: SamplingParams) -> None:
        """See `Generator.check`. Only an empty prompt is refused; the pipeline itself refuses the rest when called."""
        check_text(prompt)

    def encode(self, prompt: str, sampling: SamplingParams) -> _PipelineCall:
        """See `Generator.encode`."""
        self.check(prompt, sampling)
        return _PipelineCall(prompt, sampling)

    def start(self, conditioning: _PipelineCall, seeds: tuple[int, ...]) -> Candidates:
        """See `Generator.start`."""
        return Candidates(seeds, NOISE, {}, conditioning)

    def advance(self, candidates: Candidates, stages: Iterable[Stage]) -> Candidates:
        """See `Generator.advance`. Raises InvalidRequest for any stage but IMAGE."""
        if set(stages) != {IMAGE}:
            raise InvalidRequest(f"{self.name} is a black box: no verifier can read it before the image is finished")
        call: _PipelineCall = candidates.state
        try:
            output = self.pipeline(
                call.prompt,
                num_inference_steps=call.sampling.steps,
                num_images_per_prompt=len(candidates),
                generator=[torch.Generator().manual_seed(seed) for seed in candidates.seeds],
                output_type="np",
            )
        except (TypeError, ValueError) as error:  # a pipeline checks its arguments only when it is called
            raise InvalidRequest(
                f"{self.name} refuses to generate in {call.sampling.steps} steps ({first_line(error)}): choose other "
                "steps, or another baseline"
            ) from error
        pixels_NHWC = np.nan_to_num(output.images)
        images = self.pipeline.numpy_to_pil(pixels_NHWC)
        is_finite_N = np.isfinite(output.images).all(axis=(1, 2, 3))
        view = tuple(image if is_finite else None for image, is_finite in zip(images, is_finite_N, strict=True))
        return Candidates(candidates.seeds, IMAGE, {IMAGE: view}, call)
