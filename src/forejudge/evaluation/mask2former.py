"""Mask2Former without its training loss, and what is known of where a folder's weights come from.

transformers' `Mask2FormerForUniversalSegmentation` makes its loss whenever it is made, and that asks for scipy. This is
the rest of it, under the same names, so that both load each other's folders.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from transformers import Mask2FormerConfig, Mask2FormerModel, Mask2FormerPreTrainedModel

from forejudge.checkpoint import read_config
from forejudge.errors import CheckpointError
from forejudge.evaluation.coco import CLASS_NAMES

ORIGIN_FILE = "origin.json"

# Begins of the SHA-256 of GenEval's detector, as their file names tell: one training, published by mmdetection
# 2.x and again by 3.x (the file that GenEval's download script fetches).
GENEVAL_DETECTORS = ("743b7d99", "c9d0c4f2")


class Mask2Former(Mask2FormerPreTrainedModel):
    """Pictures in, classes and masks of N queries out."""

    _keys_to_ignore_on_load_missing = (r"\.swin\.layernorm\.",)  # of the classifier that a backbone is cut from
    _keys_to_ignore_on_load_unexpected = (r"^criterion\.", r"relative_position_index$")

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__(config)
        self.model = Mask2FormerModel(config)
        self.class_predictor = nn.Linear(config.hidden_dim, config.num_labels + 1)
        self.post_init()

    def forward(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the classes (B, N, classes + 1), "no object" last, and of the masks (B, N, H / 4, W / 4)."""
        seen = self.model(pixel_values=pixels_B3HW, output_hidden_states=True)
        states_NBD = seen.transformer_decoder_intermediate_states[-1]
        return self.class_predictor(states_NBD.transpose(0, 1)), seen.masks_queries_logits[-1]


class Origin(BaseModel):
    """The file that weights were converted from, and the weights that came of it (see `weights_digest`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    sha256: str
    weights: str

    @property
    def is_genevals(self) -> bool:
        """Whether the file is one of those that GenEval judges with."""
        return self.sha256.startswith(GENEVAL_DETECTORS)


def read_origin(folder: Path) -> Origin | None:
    """None for a folder that was not converted here. Raises CheckpointError for a damaged file."""
    path = folder / ORIGIN_FILE
    return read_config(path, Origin) if path.exists() else None


def check_classes(count: int, source: Path) -> None:
    """Raises CheckpointError for another number than COCO has."""
    if count != len(CLASS_NAMES):
        raise CheckpointError(f"{source} knows {count} classes, expected COCO's {len(CLASS_NAMES)} for instances")
