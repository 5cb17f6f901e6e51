"""The preview input: what CLIP sees of a tiny decoder's images, and which latents and decoders are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from safetensors.torch import load_file

from forejudge.errors import CheckpointError, InvalidRequest, MismatchError
from forejudge.types import Candidates, latent_stage
from forejudge.verifiers.inputs import (
    ImageFeaturesInput,
    InputWeights,
    LatentInput,
    PreviewInput,
    build_verifier_input,
    load_verifier_input,
)
from forejudge.verifiers.tiny_decoder import decode_previews, load_tiny_decoder
from tests.support.doubles import ARCHITECTURE
from tests.support.tiny_preview import (
    new_lite_decoder,
    new_tiny_decoder,
    save_tiny_preview,
    save_tiny_tower,
    tiny_preview,
)

OF_FOUR = ARCHITECTURE.model_copy(update={"latent_channels": 4})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> InputWeights:
    return save_tiny_preview(tmp_path_factory.mktemp("preview"))


@pytest.fixture
def preview(weights: InputWeights) -> PreviewInput:
    verifier_input = build_verifier_input("preview", weights)
    assert isinstance(verifier_input, PreviewInput)
    return verifier_input


def candidates(latents_NCHW: torch.Tensor) -> Candidates:
    return Candidates(tuple(range(len(latents_NCHW))), latent_stage(), {latent_stage(): latents_NCHW}, None)


def test_the_tower_sees_what_the_tiny_decoder_makes_of_the_latent(preview: PreviewInput) -> None:
    """As if diffusers decoded and CLIP's processor read the images, except for rounding to 8 bits."""
    latents_NCHW = torch.randn(2, 4, 24, 16)
    with torch.no_grad():
        decoded = preview.autoencoder.decode(latents_NCHW).sample
    images = VaeImageProcessor().postprocess(decoded, output_type="pil")
    features = preview.image_features
    expected = features.features(features.processor(images, return_tensors="pt").pixel_values)
    assert expected.shape == (2, 16, preview.width(OF_FOUR))
    torch.testing.assert_close(preview.tokens(candidates(latents_NCHW)), expected, atol=0.01, rtol=0)
    assert not torch.allclose(preview.tokens(candidates(-latents_NCHW)), expected, atol=0.1)


@pytest.mark.parametrize("size", [(48, 72), (20, 16), (32, 32)])
def test_images_are_preprocessed_as_the_processor_does(preview: PreviewInput, size: tuple[int, int]) -> None:
    features = preview.image_features
    coarse = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
    expected = features.processor([image], return_tensors="pt").pixel_values
    found = features.preprocess(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 127.5 - 1)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 2 / 255 / min(features.processor.image_std)


def test_latents_are_scaled_by_the_decoders_own_factors() -> None:
    tiny, latents_NCHW = new_tiny_decoder(scaling_factor=2.0, shift_factor=0.25), torch.randn(1, 4, 4, 4)
    with torch.no_grad():
        expected = tiny.decoder(latents_NCHW / 2 + 0.25)
    torch.testing.assert_close(decode_previews(tiny, latents_NCHW), expected)


def test_a_smaller_dc_ae_is_a_tiny_decoder_too(tmp_path: Path) -> None:
    lite, latents_NCHW = new_lite_decoder(scaling_factor=0.4), 3 * torch.randn(1, 4, 4, 4)
    lite.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = lite.decode(latents_NCHW / 0.4).sample
    torch.testing.assert_close(decode_previews(load_tiny_decoder(tmp_path), latents_NCHW), expected)


def test_recorded_latents_give_the_same_tokens(preview: PreviewInput) -> None:
    latents_NCHW, latent = torch.randn(2, 4, 4, 6), LatentInput()
    recorded = latent.tokens(candidates(latents_NCHW))
    derived = preview.derive(recorded, latent.grid(candidates(latents_NCHW)))
    assert preview.derived_from == latent.name
    torch.testing.assert_close(derived, preview.tokens(candidates(latents_NCHW)))
    square = latents_NCHW[..., :4]
    derived = preview.derive(latent.tokens(candidates(square)), None)
    torch.testing.assert_close(derived, preview.tokens(candidates(square)))


def test_tower_and_decoder_are_kept_with_the_verifier_and_never_trained(preview: PreviewInput, tmp_path: Path) -> None:
    preview.save_pretrained(tmp_path)
    again = load_verifier_input("preview", tmp_path)
    assert again.weights().keys() == preview.weights().keys()
    for name, weight in preview.weights().items():
        assert torch.equal(weight, again.weights()[name]), name
    saved = load_file(tmp_path / "tiny_decoder" / "diffusion_pytorch_model.safetensors")
    decoder = {f"tiny_{name}" for name in saved if name.startswith("decoder.")}
    assert decoder == {name for name in preview.weights() if name.startswith("tiny_decoder.")}, "without the encoder"
    assert str(tmp_path.parent) not in (tmp_path / "tiny_decoder" / "config.json").read_text(), (
        "no path of this machine"
    )
    assert not any(weight.requires_grad for module in again.modules() for weight in module.parameters())


def test_it_runs_in_the_dtype_it_is_moved_to(tmp_path: Path) -> None:
    preview = tiny_preview(tmp_path)
    preview.to(torch.device("cpu"), torch.bfloat16)
    assert preview.tokens(candidates(torch.randn(1, 4, 4, 4))).dtype == torch.bfloat16


def test_latents_of_other_channels_are_refused(preview: PreviewInput) -> None:
    with pytest.raises(MismatchError, match="takes latents of 4 channels, but the generator's have 1: use the one"):
        preview.width(ARCHITECTURE)


def test_latents_of_another_scale_are_refused(preview: PreviewInput) -> None:
    """Such as those of Stable Diffusion as its own decoder takes them: divided by 0.18215."""
    latents_NCHW = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    preview.tokens(candidates(1.5 * latents_NCHW))
    with pytest.raises(MismatchError, match=r"root mean square of about 1, but .* these have 5\.\d: use the one"):
        preview.tokens(candidates(latents_NCHW / 0.18215))


def test_what_it_sees_with_has_to_be_named(weights: InputWeights, tmp_path: Path) -> None:
    for given, missing in ((InputWeights(), "vision_tower"), (InputWeights(weights.vision_tower), "tiny_decoder")):
        with pytest.raises(InvalidRequest, match=f"name a folder or a hub id as {missing}"):
            build_verifier_input("preview", given)
    with pytest.raises(CheckpointError, match=r"_class_name: .*; name an AutoencoderTiny or AutoencoderDC"):
        build_verifier_input("preview", InputWeights(weights.vision_tower, save_tiny_tower(tmp_path)))


def test_only_the_kinds_that_need_them_look_for_weights(weights: InputWeights) -> None:
    assert isinstance(build_verifier_input("clip", InputWeights(weights.vision_tower)), ImageFeaturesInput)
    assert build_verifier_input("latent", InputWeights("nowhere", "nowhere")).modules() == ()


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_compiled_it_reads_the_same_step(preview: PreviewInput) -> None:
    compiled = preview.at_step(1).compiled()
    assert (compiled.stage, compiled.name) == (latent_stage(1), "preview")
    assert preview.stage == latent_stage()
