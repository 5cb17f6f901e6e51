"""Recorded cases of the official code, copies of its checkpoints to modify, and a plain version of its computation."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from forejudge.hub import Source
from forejudge.types import IMAGE, Candidates, prefix_stage
from forejudge.verifiers.language_model import LanguageModelVerifier
from forejudge.verifiers.published_import import PublishedSource, import_published
from tests.support.folders import copy_folder

OFFICIAL = Path(__file__).resolve().parents[1] / "fixtures" / "official"
DTYPES = {"fp32": torch.float32, "fp32_bf16norm": torch.float32, "bf16": torch.bfloat16}  # of the model, in each mode
STATES = {"fp32": torch.float32, "fp32_bf16norm": torch.bfloat16, "bf16": torch.bfloat16}
TOLERANCE = {"fp32": 2e-6, "fp32_bf16norm": 2e-6, "bf16": 2e-2}
CUT = prefix_stage(8)
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class RecordedCases:
    """Folder of the official code's inputs and outputs."""

    folder: Path

    def cases(self, name: str) -> list[dict[str, Any]]:
        cases: list[dict[str, Any]] = json.loads((self.folder / name).read_text())["cases"]
        return cases

    def states(self, dtype: torch.dtype) -> Tensors:
        return {name: state.to(dtype) for name, state in load_file(self.folder / "activations_96.safetensors").items()}

    def image(self, name: str) -> Image.Image:
        with Image.open(self.folder / name) as image:
            return image.copy()

    def statistics(self, norm: str, mode: str) -> tuple[Path, Path]:
        """Return the files of mean and variance; `norm` is channel, token or global."""
        of, dtype = "" if norm == "channel" else f"_{norm}", "fp32" if mode == "fp32" else "bf16"
        mean, variance = (self.folder / f"norm/96/block_7_{name}{of}_{dtype}.pt" for name in ("mean", "variance"))
        return mean, variance

    def hidden_verifier(self, norm: str = "channel", mode: str = "fp32") -> PublishedSource:
        files = self.statistics(norm, mode)
        return PublishedSource(Source("vhs", self.folder / "vhs-tiny-96"), files, str(self.folder / "sana-sprint-tiny"))

    def clip_verifier(self) -> PublishedSource:
        return PublishedSource(
            Source("clip", self.folder / "vhs-tiny-clip"),
            generator=str(self.folder / "sana-sprint-tiny"),
            vision_tower=str(self.folder / "openai" / "clip-tiny-vision"),
        )


RECORDED = RecordedCases(OFFICIAL)


def import_verifier(source: PublishedSource, dtype: torch.dtype | None = torch.float32) -> LanguageModelVerifier:
    return import_published(source, dtype=dtype).verifier


def candidates(hidden_NTD: Tensor) -> Candidates:
    """Wrap hidden states after 8 blocks."""
    return Candidates(tuple(range(len(hidden_NTD))), CUT, {CUT: hidden_NTD}, None)


def candidates_with_images(images: list[Image.Image]) -> Candidates:
    """Wrap finished images."""
    return Candidates(tuple(range(len(images))), IMAGE, {IMAGE: tuple(images)}, None)


def modified_checkpoint(
    folder: Path,
    destination: Path,
    config: dict[str, Any] | None = None,
    tensors: Callable[[Tensors], object] | None = None,
) -> Path:
    """Copy a published verifier with changed config fields (None removes one) and changed tensors."""
    copy_folder(folder, destination)
    merged_config = json.loads((destination / "config.json").read_text()) | (config or {})
    present = {name: value for name, value in merged_config.items() if value is not None}
    (destination / "config.json").write_text(json.dumps(present))
    if tensors is not None:
        weights = load_file(destination / "model.safetensors")
        tensors(weights)
        save_file(weights, destination / "model.safetensors", metadata={"format": "pt"})
    return destination


def with_tokenizer_config(folder: Path, **values: Any) -> Path:
    """Change tokenizer_config.json in a folder and return the folder."""
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def reference_probabilities(
    folder: Path, hidden_NTD: Tensor, mean: Tensor, variance: Tensor, prompt: str, dtype: torch.dtype
) -> Tensor:
    """Compute probabilities of the next token (V,) as the official code's description has it, without our code."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    also = ("num_key_value_heads", "tie_word_embeddings", "rms_norm_eps")
    rope = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    qwen2 = Qwen2Config(**{name: config[name] for name in sizes + also}, rope_parameters=rope)
    projector = {name.removeprefix("model.mm_projector."): weights.pop(name) for name in list(weights) if "mm_" in name}
    model = Qwen2ForCausalLM.from_pretrained(None, config=qwen2, state_dict=weights, dtype=dtype).eval()

    standard = (hidden_NTD - mean.unsqueeze(1)) / torch.sqrt(variance.unsqueeze(1) + 1e-6)
    inner = F.gelu(F.linear(standard.to(dtype), projector["0.weight"], projector["0.bias"]))
    image_tokens = F.linear(inner, projector["2.weight"], projector["2.bias"])

    question = (
        "You are an AI assistant specializing in image analysis and ranking. Your task is to analyze and compare image "
        f"based on how well they match the given prompt. <image> The given prompt is: {prompt}. Please consider the "
        "prompt and the image to make a decision and response directly with 'yes' or 'no'"
    )
    tokenizer = Qwen2Tokenizer.from_pretrained(folder)
    turn = [{"role": "user", "content": question}]
    sides = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True).split("<image>")
    left, right = (model.get_input_embeddings()(torch.tensor([tokenizer(side).input_ids])) for side in sides)
    with torch.no_grad():
        logits_V = model(inputs_embeds=torch.cat([left, image_tokens, right], dim=1)).logits[0, -1]
    return logits_V.float().softmax(-1)
