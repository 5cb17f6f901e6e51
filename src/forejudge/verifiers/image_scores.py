"""Verifiers that score finished images: CLIPScore, and any function of the user's."""

import hashlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerBase

from forejudge.device import is_out_of_memory
from forejudge.digests import tensors_digest
from forejudge.errors import ForejudgeError, InvalidRequest, one_line
from forejudge.generators.base import Generator
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model, load_tokenizer
from forejudge.types import IMAGE, Candidates, Verdict
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.inputs import load_image_processor

ImageScorer = Callable[[str, Sequence[Image]], Sequence[float]]
"""(prompt, images) -> one score per image, higher is better."""


class ImageScoreVerifier(Verifier):
    """Verifier of finished images by a function. Its scores only rank: it has no probability, so no `until`.

    `weights` identify it; a function without any is identified by its name. Raises InvalidRequest for what cannot be
    called with a prompt and images.
    """

    reads, calibrated = frozenset({IMAGE}), False

    def __init__(
        self, scorer: ImageScorer, name: str, weights: Mapping[str, torch.Tensor] = MappingProxyType({})
    ) -> None:
        _check_scorer(scorer, name)
        self._scorer, self.name, self._weights = scorer, name, weights

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        """16 hexadecimal digits of the weights, wherever they were loaded from, or of the name without weights."""
        identity = tensors_digest(self._weights.items()) if self._weights else self.name
        return hashlib.sha256(identity.encode()).hexdigest()[:16]

    def check(self, generator: Generator) -> list[str]:
        """See `Verifier.check`: it reads the images of every generator."""
        return []

    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.score`. Raises InvalidRequest if the function fails, or gives no finite score per image."""
        try:
            scores = [float(score) for score in self._scorer(prompt, candidates.images)]
        except Exception as error:  # the function is the user's
            if isinstance(error, ForejudgeError) or is_out_of_memory(error):
                raise
            raise InvalidRequest(
                f"verifier {self.name} failed with {type(error).__name__}: {one_line(str(error))}; expected one finite "
                "number for each image"
            ) from error
        if len(scores) != len(candidates) or not all(map(math.isfinite, scores)):
            raise InvalidRequest(
                f"verifier {self.name} returned {scores} for {len(candidates)} images: expected one finite number each"
            )
        return [Verdict(score) for score in scores]


def _check_scorer(scorer: object, name: str) -> None:
    """Raise InvalidRequest for what cannot be called with a prompt and images."""
    if not callable(scorer):
        raise InvalidRequest(
            f"verifier {name} is a {type(scorer).__name__}: expected a function of a prompt and images"
        )
    try:
        inspect.signature(scorer).bind("a prompt", ())
    except TypeError as error:
        raise InvalidRequest(f"verifier {name} cannot be called with a prompt and images: {error}") from None
    except ValueError:  # a function written in C may not tell its arguments
        return


class ClipScore:
    """Cosine of CLIP's embeddings of prompt and image, in [-1, 1] (Hessel et al. 2021, without its scale).

    A prompt longer than CLIP's text encoder takes is truncated.
    """

    def __init__(self, model: CLIPModel, tokenizer: PreTrainedTokenizerBase, processor: CLIPImageProcessorPil) -> None:
        self.model, self.tokenizer, self.processor = model.eval(), tokenizer, processor

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: torch.device, dtype: torch.dtype) -> "ClipScore":
        """Load a folder or hub id that holds a `CLIPModel`. Raises CheckpointError."""
        folder = local_folder(str(folder))
        model: Any = load_library_model(CLIPModel, folder, dtype)
        return cls(model.to(device), load_tokenizer(AutoTokenizer, folder), load_image_processor(folder))

    @torch.no_grad()
    def __call__(self, prompt: str, images: Sequence[Image]) -> list[float]:
        """Score images; see `ImageScorer`."""
        max_length = self.model.config.text_config.max_position_embeddings
        text = self.tokenizer(prompt, truncation=True, max_length=max_length, return_tensors="pt")
        pixels_N3HW = self.processor(list(images), return_tensors="pt").pixel_values
        device, dtype = self.model.device, self.model.dtype
        outputs = self.model(**text.to(device), pixel_values=pixels_N3HW.to(device, dtype))
        cosine_N: list[float] = (outputs.image_embeds @ outputs.text_embeds.T)[:, 0].float().tolist()
        return cosine_N
