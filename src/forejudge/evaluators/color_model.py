"""The color of an object in a picture, read by CLIP as GenEval reads it.

GenEval asks CLIP ViT-L/14 of OpenAI, in half precision on a GPU; here it is float32. Shape letters: N objects, D width
of CLIP's common space, C colors.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoTokenizer, CLIPModel

from forejudge.checkpoint import weights_name
from forejudge.device import exact_float32
from forejudge.errors import CheckpointError
from forejudge.evaluators.geneval_rules import Detection
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model, load_tokenizer
from forejudge.prompts.geneval import COLORS, Color

OPENAI_CLIP = "openai/clip-vit-large-patch14"

_TEMPLATES = ("a photo of a {color} {name}", "a photo of a {color}-colored {name}", "a photo of a {color} object")
_BACKGROUND = "#999"
_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


class ColorModel:
    """`name` tells its weights from all others."""

    def __init__(self, name: str, model: CLIPModel, tokenizer: Any) -> None:
        self.name, self._tokenizer = name, tokenizer
        self._model: Any = model.eval().requires_grad_(False)
        self._classifiers: dict[str, Tensor] = {}

    @classmethod
    def from_pretrained(cls, name: str, device: torch.device) -> "ColorModel":
        """Load a folder or hub id that holds a `CLIPModel` and its tokenizer.

        Raises CheckpointError, also for another activation than quick GELU, which OpenAI's weights were trained with.
        """
        folder = local_folder(name)
        model: Any = load_library_model(CLIPModel, folder, torch.float32, allow_unexpected_keys=True)
        for part in (model.config.text_config, model.config.vision_config):
            if part.hidden_act != "quick_gelu":
                raise CheckpointError(f"{name} has the activation {part.hidden_act}, expected OpenAI's quick_gelu")
        return cls(weights_name(name, folder), model.to(device), load_tokenizer(AutoTokenizer, folder))

    @torch.no_grad()
    def __call__(self, image: Image.Image, found: Sequence[Detection]) -> list[Color]:
        """The likeliest of GenEval's ten colors for each object; all are of one class.

        Raises CheckpointError where the model gives no numbers.
        """
        if not found:
            return []
        side = self._model.config.vision_config.image_size
        pixels_N3HW = torch.stack([_clip_pixels(cut_out(image, each), side) for each in found])
        with exact_float32():
            seen = self._model.vision_model(pixel_values=pixels_N3HW.to(self._model.device)).pooler_output
            features_ND = normalize(self._model.visual_projection(seen), dim=-1)
            likeness_NC = features_ND @ self._classifier(found[0].class_name).T
        if not likeness_NC.isfinite().all():
            raise CheckpointError(f"color model {self.name} gave no numbers for a picture: its weights are damaged")
        return [COLORS[index] for index in likeness_NC.argmax(dim=1).tolist()]

    def _classifier(self, class_name: str) -> Tensor:
        """A direction for each color: the mean of three sentences' directions."""
        if class_name not in self._classifiers:
            texts = [text.format(color=color, name=class_name) for color in COLORS for text in _TEMPLATES]
            tokens = self._tokenizer(texts, padding=True, return_tensors="pt").to(self._model.device)
            read = self._model.text_model(tokens.input_ids, tokens.attention_mask).pooler_output
            directions = normalize(self._model.text_projection(read), dim=-1).unflatten(0, (len(COLORS), -1))
            self._classifiers[class_name] = normalize(directions.mean(dim=1), dim=-1)
        return self._classifiers[class_name]


def cut_out(image: Image.Image, found: Detection) -> Image.Image:
    """An object's box, grey where its mask is not."""
    image = image.convert("RGB")
    if found.mask is not None:
        blank = Image.new("RGB", image.size, _BACKGROUND)
        image = Image.composite(image, blank, Image.fromarray(found.mask))
    return image.crop(found.box)  # which rounds


def _clip_pixels(image: Image.Image, side: int) -> Tensor:
    """(3, side, side): the shorter edge resized to `side`, the middle kept, normalised; as open_clip does."""
    shorter = min(image.size)
    width, height = (int(side * edge / shorter) for edge in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    cropped = np.array(resized.crop((left, top, left + side, top + side)))
    return (torch.from_numpy(cropped).permute(2, 0, 1).float() / 255 - _MEAN) / _STD
