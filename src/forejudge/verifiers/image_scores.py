"""Verifiers that score finished pictures: CLIPScore, and any function of the user's."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from PIL.Image import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerBase

from forejudge.errors import InvalidRequest
from forejudge.generators.base import Generator
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model, load_tokenizer
from forejudge.types import IMAGE, Candidates, Verdict
from forejudge.verifiers.base import Verifier
from forejudge.verifiers.inputs import load_image_processor

ImageScorer = Callable[[str, Sequence[Image]], Sequence[float]]
"""(prompt, pictures) -> a score for each, higher for better."""


class ImageScoreVerifier(Verifier):
    """Any function as a verifier of finished pictures. Its scores only rank: no probability, so no `until`.

    `weights` are those that tell the function from others of its name.

    Raises InvalidRequest where the function gives another number of scores, or one that is no number.
    """

    reads, calibrated = frozenset({IMAGE}), False

    def __init__(self, scores: ImageScorer, name: str, weights: Iterable[torch.Tensor] = ()) -> None:
        self._scorer, self.name = scores, name
        digest = hashlib.sha256(name.encode())
        for weight in weights:
            digest.update(weight.detach().cpu().float().numpy().tobytes())
        self.digest = digest.hexdigest()[:16]

    @classmethod
    def from_import_path(cls, import_path: str) -> "ImageScoreVerifier":
        """A function by "module:function". Raises InvalidRequest where there is none."""
        try:
            scorer = resolve_name(import_path)
        except (ImportError, AttributeError) as error:
            raise InvalidRequest(f"verifier {import_path!r} cannot be imported: {error}") from None
        return cls(scorer, import_path)

    def check(self, generator: Generator) -> list[str]:
        """See `Verifier.check`: pictures are pictures."""
        return []

    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.score`."""
        scores = [float(score) for score in self._scorer(prompt, candidates.images)]
        if len(scores) != len(candidates) or not all(map(math.isfinite, scores)):
            raise InvalidRequest(f"verifier {self.name} gave {scores} for {len(candidates)} pictures: a number each")
        return [Verdict(score) for score in scores]


class ClipScore:
    """Cosine of CLIP's embeddings of prompt and picture, in [-1, 1] (Hessel et al. 2021, without its scale).

    A prompt longer than CLIP's text side takes is cut.
    """

    def __init__(self, model: CLIPModel, tokenizer: PreTrainedTokenizerBase, processor: CLIPImageProcessorPil) -> None:
        self.model, self.tokenizer, self.processor = model.eval(), tokenizer, processor

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: torch.device, dtype: torch.dtype) -> "ClipScore":
        """A folder, or a hub id, that holds a `CLIPModel`. Raises CheckpointError."""
        folder = local_folder(str(folder))
        model: Any = load_library_model(CLIPModel, folder, dtype)
        return cls(model.to(device), load_tokenizer(AutoTokenizer, folder), load_image_processor(folder))

    @torch.no_grad()
    def __call__(self, prompt: str, images: Sequence[Image]) -> list[float]:
        """See `ImageScorer`."""
        max_length = self.model.config.text_config.max_position_embeddings
        text = self.tokenizer(prompt, truncation=True, max_length=max_length, return_tensors="pt")
        pixels_N3HW = self.processor(list(images), return_tensors="pt").pixel_values
        device, dtype = self.model.device, self.model.dtype
        outputs = self.model(**text.to(device), pixel_values=pixels_N3HW.to(device, dtype))
        cosine_N: list[float] = (outputs.image_embeds @ outputs.text_embeds.T)[:, 0].float().tolist()
        return cosine_N
