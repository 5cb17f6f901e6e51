"""State of a pipeline, to see that wrapping it changed nothing."""

import hashlib
from typing import Any

import torch
from diffusers import DiffusionPipeline


def pipeline_state(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """Return weights by their digest, everything else as it is."""
    parts = pipeline.components
    models = {part: model for part, model in parts.items() if isinstance(model, torch.nn.Module)}
    modules = [module for model in models.values() for module in model.modules()]
    weights = {(part, name): tensor for part, model in models.items() for name, tensor in model.state_dict().items()}
    tokenizers = {part: tokenizer for part, tokenizer in parts.items() if part.startswith("tokenizer")}
    return {
        "weights": {name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest() for name, tensor in weights.items()},
        "gradients": [weight.requires_grad for model in models.values() for weight in model.parameters()],
        "configs": {part: str(model.config) for part, model in models.items()},
        "pipeline": dict(pipeline.config),
        "attributes": sorted(vars(pipeline)),
        "scheduler": {key: str(value) for key, value in vars(pipeline.scheduler).items()},
        "tokenizers": {part: (str(tokenizer), tokenizer.padding_side) for part, tokenizer in tokenizers.items()},
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        "forwards": [vars(module).get("forward") for module in modules],
        "training": [module.training for module in modules],
    }
