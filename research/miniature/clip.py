"""CLIP of the miniature, trained on rendered images and their captions.

Baselines encode finished images with it: as the vision tower of MLLM w/ CLIP, and as CLIPScore. Like the real one it
was trained on clean images only, never on generated ones, and on no label.
"""

import random

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from forejudge.miniature.captioner import CAPTION_WORDS, caption_from_detections
from forejudge.miniature.prompts import sample_descriptions
from forejudge.miniature.scenes import IMAGE_SIZE, NOISE_SHAPE, SceneConstraints, couple, render
from forejudge.noise import Split
from research.miniature.language_model import clip_tokenizer, scene_detections
from research.miniature.train import LossAtStep, generator_for_step

_PATCH_SIZE = 8  # pixels; an image then has as many patches as the generator has tokens
_MAX_TEXT_TOKENS = 77  # as the real one


def clip_image_processor() -> CLIPImageProcessorPil:
    """Return the image processor of its vision tower, which maps pixels to [-1, 1]."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    half = [0.5, 0.5, 0.5]
    return CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=size, image_mean=half, image_std=half)


def caption_tokenizer() -> CLIPTokenizer:
    """Return the tokenizer, in which every word of captions and prompts is one token."""
    return clip_tokenizer(CAPTION_WORDS)


def new_clip(tokenizer: CLIPTokenizer, width: int, layers: int) -> CLIPModel:
    """Return an untrained CLIP with both towers of one size; `width` is a multiple of 32."""
    size = {
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
    }
    special_tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": _MAX_TEXT_TOKENS, **special_tokens, **size}
    vision = {"image_size": IMAGE_SIZE, "patch_size": _PATCH_SIZE, **size}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width))


def clip_loss(model: CLIPModel, tokenizer: CLIPTokenizer, batch_size: int, seed: int) -> LossAtStep:
    """Return CLIP's contrastive loss on fresh scenes of training prompts, as a function of the training step."""

    def loss_at_step(step: int) -> Tensor:
        return _contrastive_loss(_logits(model, tokenizer, batch_size, generator_for_step(seed, step), "training"))

    return loss_at_step


@torch.no_grad()
def held_out_retrieval(model: CLIPModel, tokenizer: CLIPTokenizer, count: int, seed: int) -> float:
    """Return the share in [0, 1] of images of validation prompts whose own caption, of `count`, is the nearest."""
    logits_NN = _logits(model, tokenizer, count, generator_for_step(seed, 0), "validation")
    return float((logits_NN.argmax(dim=1) == torch.arange(count, device=logits_NN.device)).float().mean())


def _logits(model: CLIPModel, tokenizer: CLIPTokenizer, count: int, generator: torch.Generator, split: Split) -> Tensor:
    """Compute the similarity of each image and each caption: (N, N)."""
    rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
    sampled = sample_descriptions(count, generator, split)
    scenes = couple(SceneConstraints.from_descriptions(sampled), torch.randn(count, *NOISE_SHAPE, generator=generator))
    captions = [
        caption_from_detections(scene_detections(scenes, row, rng, unclear_share=0), rng) for row in range(count)
    ]
    texts = tokenizer(captions, padding=True, truncation=True, max_length=_MAX_TEXT_TOKENS, return_tensors="pt")
    pixels_N3HW = (2 * render(scenes) - 1).to(model.device)
    logits_NN: Tensor = model(**texts.to(model.device), pixel_values=pixels_N3HW).logits_per_image
    return logits_NN


def _contrastive_loss(logits_NN: Tensor) -> Tensor:
    targets = torch.arange(len(logits_NN), device=logits_NN.device)
    return (F.cross_entropy(logits_NN, targets) + F.cross_entropy(logits_NN.T, targets)) / 2
