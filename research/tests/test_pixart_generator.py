"""The second generator: what is trained is what the generator draws, and training teaches it something."""

import torch

from forejudge.generators.base import SamplingParams
from forejudge.generators.pixart import PixArt
from forejudge.miniature.scenes import NOISE_SHAPE
from forejudge.types import latent_stage
from research.miniature.autoencoder import new_autoencoder
from research.miniature.one_step import GeneratorLoss
from research.miniature.pixart_generator import OPTIONS, PixArtParts, assemble
from research.tests.few_steps import losses_of
from tests.support.tiny_pixart import call_reference_pipeline

PROMPT = "a photo of a red circle left of a blue square"


def test_what_is_learnt_is_what_is_drawn() -> None:
    """The clean latents that the loss is measured on are those that the pipeline decodes."""
    torch.manual_seed(0)
    parts = PixArtParts(3, 64, 2).eval()
    generator = PixArt(assemble(parts, new_autoencoder()), "untrained", OPTIONS)
    noise_NCHW = torch.randn(2, *NOISE_SHAPE, generator=torch.Generator().manual_seed(0))
    candidates = generator.start(generator.encode(PROMPT, SamplingParams()), (0, 1), noise_NCHW)
    drawn_NCHW = generator.advance(candidates, [latent_stage()]).tensor(latent_stage())
    text = parts.tokenizer()([PROMPT] * 2, return_tensors="pt")
    training_example = parts.training_example(torch.zeros(2, *NOISE_SHAPE), noise_NCHW, torch.Generator())
    with torch.no_grad():
        predicted_NCHW, _ = parts(
            text.input_ids, text.attention_mask, training_example.latents_NCHW, training_example.time_N
        )
    torch.testing.assert_close(predicted_NCHW, drawn_NCHW, atol=1e-4, rtol=1e-4)
    assert training_example.target_NCHW.eq(0).all()


def test_plain_diffusers_draws_with_it() -> None:
    """Though its autoencoder is none of those that PixArt's pipeline expects."""
    pipeline = assemble(PixArtParts(2, 64, 2), new_autoencoder())
    pipeline.set_progress_bar_config(disable=True)
    (image,) = call_reference_pipeline(pipeline, [0])
    assert image.size == (64, 64)


def test_a_few_steps_teach_something() -> None:
    torch.manual_seed(0)
    parts = PixArtParts(2, 64, 2)
    losses = losses_of(parts, GeneratorLoss(parts, new_autoencoder(), compiled=False).per_step(8, seed=0), 25, 2e-3)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
