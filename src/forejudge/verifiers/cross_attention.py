"""Verifier without a language model: the generator's own text states attend to what a candidate shows.

The prompt is encoded for the generator anyway, so a verdict costs a few layers of cross-attention. Its folder holds
verifier.json and model.safetensors.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.torch import save_file
from torch import Tensor, nn

from forejudge.checkpoint import load_weights
from forejudge.compiling import compile_layers
from forejudge.errors import MismatchError
from forejudge.types import Candidates, Grid, Verdict
from forejudge.verifiers.base import PretrainedVerifier
from forejudge.verifiers.config import VerifierConfig
from forejudge.verifiers.connector import Connector, KeepBufferDtype, square_grid
from forejudge.verifiers.inputs import VerifierInput

MODEL_FILE = "model.safetensors"

_Size = Annotated[int, Field(gt=0, le=2**14)]


class CrossAttentionSize(BaseModel):
    """Shape of a `CrossAttentionModel`: its width E, which `heads` divide, and its layers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    width: _Size = 128
    layers: _Size = 3
    heads: _Size = 4

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width = {self.width} must be a multiple of heads = {self.heads} and of 4")
        return self


class CrossAttentionVerifierConfig(VerifierConfig):
    """verifier.json of a `CrossAttentionVerifier`. For `spatial_merge_size` see `Connector`."""

    kind: Literal["cross_attention"] = "cross_attention"
    size: CrossAttentionSize = CrossAttentionSize()
    spatial_merge_size: _Size = 1

    def new_model(self, verifier_input: VerifierInput) -> "CrossAttentionModel":
        """Build an untrained model for an input. Raises MismatchError if the generator has no such stage."""
        if self.generator is None:
            raise MismatchError("verifier.json names no generator, so the width of its text states is unknown")
        connector = Connector(self.input_width(verifier_input), self.size.width, self.spatial_merge_size)
        return CrossAttentionModel(connector, self.generator.text_width, self.size)


class CrossAttentionModel(KeepBufferDtype):
    """Layers in which an answer token and the prompt's text states attend to each other, then to the image.

    The connector maps the image's tokens to width E; their places are added as sines and cosines.
    """

    def __init__(self, connector: Connector, text_width: int, size: CrossAttentionSize) -> None:
        super().__init__()
        width = size.width
        self.connector, self.image_norm = connector, nn.LayerNorm(width)
        self.text = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width))
        self.answer_E = nn.Parameter(0.02 * torch.randn(width))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(width, size.heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(size.layers)
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(
        self, tokens_NTD: Tensor, text_NLD: Tensor, mask_NL: Tensor | None = None, grid: Grid | None = None
    ) -> Tensor:
        """Return the log-odds of yes (N,), in float32.

        `mask_NL` is 1 for the real tokens of the text; `grid` is that of the image's tokens (default: a square).
        """
        image_NTE = self._image(tokens_NTD, grid)
        text_NLE = self.text(text_NLD.to(image_NTE.dtype))
        answer_N1E = self.answer_E.expand(len(text_NLE), 1, -1)
        states_NSE = torch.cat([answer_N1E, text_NLE], dim=1)
        is_padding_NS = None if mask_NL is None else nn.functional.pad(mask_NL == 0, (1, 0), value=False)
        for layer in self.layers:
            states_NSE = layer(states_NSE, image_NTE, tgt_key_padding_mask=is_padding_NS)
        log_odds_N: Tensor = self.head(states_NSE[:, 0])[:, 0].float()
        return log_odds_N

    def _image(self, tokens_NTD: Tensor, grid: Grid | None) -> Tensor:
        embedded_NTE = self.connector(tokens_NTD, grid)
        merge_size = self.connector.merge_size
        rows, columns = (side // merge_size for side in grid or square_grid(tokens_NTD.shape[1]))
        places_TE = _places(embedded_NTE.shape[-1], rows, columns, embedded_NTE.dtype, embedded_NTE.device)
        normed_NTE: Tensor = self.image_norm(embedded_NTE + places_TE)
        return normed_NTE


@lru_cache(maxsize=64)
def _places(width: int, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return sines and cosines of each token's place, relative to the image's sides: (rows * columns, width)."""
    from diffusers.models.embeddings import get_2d_sincos_pos_embed  # a recipe needs only the sizes above

    places_TE: Tensor = get_2d_sincos_pos_embed(width, (rows, columns), output_type="pt")
    return places_TE.to(device, dtype)


class CrossAttentionVerifier(PretrainedVerifier[CrossAttentionVerifierConfig]):
    """Verifier that reads a candidate with its generator's text states; `config.reads` names its input."""

    config_class = CrossAttentionVerifierConfig

    def __init__(
        self,
        name: str,
        config: CrossAttentionVerifierConfig,
        model: CrossAttentionModel,
        verifier_input: VerifierInput | None = None,
    ) -> None:
        super().__init__(name, config, verifier_input)
        self.model = model.eval()

    @classmethod
    def load_model(
        cls,
        folder: Path,
        name: str,
        config: CrossAttentionVerifierConfig,
        verifier_input: VerifierInput,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Self:
        """See `PretrainedVerifier.load_model`."""
        model = config.new_model(verifier_input)
        load_weights(model, folder / MODEL_FILE, keep_dtypes=True)
        return cls(name, config, model.to(device, dtype), verifier_input)

    def save_model(self, folder: Path) -> None:
        """See `PretrainedVerifier.save_model`."""
        save_file(self.model.state_dict(), folder / MODEL_FILE)

    def weights(self) -> Mapping[str, Tensor]:
        """See `PretrainedVerifier.weights`."""
        return self.model.state_dict()

    @property
    def input_width(self) -> int:
        """See `PretrainedVerifier.input_width`."""
        return self.model.connector.width

    def compiled(self) -> Self:
        """See `Verifier.compiled`."""
        clone = super().compiled()
        clone.model = compile_layers(self.model)
        return clone

    @torch.no_grad()
    def score(self, prompt: str, candidates: Candidates) -> list[Verdict]:
        """See `Verifier.score`. Raises MismatchError for candidates that come without text states."""
        if candidates.text_LD is None:
            raise MismatchError(
                f"verifier {self.name} reads the generator's text states, which this generator does not give: use a "
                "verifier with a language model"
            )
        tokens_NTD = self.verifier_input.tokens(candidates)
        text_NLD = candidates.text_LD.to(tokens_NTD.device).expand(len(candidates), -1, -1)
        log_odds_N = self.model(tokens_NTD, text_NLD, grid=self.verifier_input.grid(candidates))
        return [self.verdict(log_odds, log_odds) for log_odds in log_odds_N.tolist()]
