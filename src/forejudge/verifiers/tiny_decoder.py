"""Tiny decoders: small models distilled from a generator's decoder, which show a latent for a fraction of its cost.

One is the decoding half of an `AutoencoderTiny` of diffusers (TAESD and its kin) or of a smaller `AutoencoderDC`
(DC-AE-Lite). As in diffusers' pipelines it takes their latents divided by its own `scaling_factor`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from forejudge.config_files import read_config
from forejudge.errors import MismatchError
from forejudge.hub import local_folder
from forejudge.library_models import load_library_model

if TYPE_CHECKING:  # takes seconds to import
    from diffusers import AutoencoderDC, AutoencoderTiny

    TinyAutoencoder: TypeAlias = "AutoencoderTiny | AutoencoderDC"

_MAX_RMS = 2.0  # of scaled latents, whose variance is about 1; AutoencoderTiny clamps them at 3


class _DiffusersConfig(BaseModel):
    """The one field of a diffusers model's config.json that says what it is."""

    class_name: Literal["AutoencoderTiny", "AutoencoderDC"] = Field(alias="_class_name")


def load_tiny_decoder(name: str | Path, dtype: torch.dtype = torch.float32) -> "TinyAutoencoder":
    """Load a folder or hub id of an `AutoencoderTiny` or `AutoencoderDC`. Raises CheckpointError."""
    import diffusers

    folder = local_folder(str(name))
    remedy = "name an AutoencoderTiny or AutoencoderDC of diffusers"
    class_name = read_config(folder / "config.json", _DiffusersConfig, remedy).class_name
    autoencoder: Any = load_library_model(getattr(diffusers, class_name), folder, dtype)
    autoencoder.register_to_config(_name_or_path="")  # the folder's path, which would be saved with a verifier
    return autoencoder


@torch.no_grad()
def decode_previews(autoencoder: "TinyAutoencoder", latents_NCHW: Tensor) -> Tensor:
    """Return previews (N, 3, H, W), about in [-1, 1], of a pipeline's latents.

    Raises MismatchError for latents far from the variance that an `AutoencoderTiny` takes.
    """
    from diffusers import AutoencoderTiny

    config, weight = autoencoder.config, next(autoencoder.decoder.parameters())
    scaled_NCHW = latents_NCHW.to(weight.device).float() / config.scaling_factor + config.get("shift_factor", 0.0)
    if isinstance(autoencoder, AutoencoderTiny) and not scaled_NCHW.is_meta:
        _check_scale(scaled_NCHW)
    # Convolutions of few channels are faster with the channels last.
    previews_N3HW: Tensor = autoencoder.decoder(scaled_NCHW.to(weight.dtype, memory_format=torch.channels_last))
    return previews_N3HW


def _check_scale(scaled_NCHW: Tensor) -> None:
    rms = float(scaled_NCHW.square().mean().sqrt())
    if rms > _MAX_RMS:
        raise MismatchError(
            f"the tiny decoder takes latents with a root mean square of about 1, but divided by its scaling_factor "
            f"these have {rms:.2g}: use the one that was distilled from the generator's autoencoder"
        )
