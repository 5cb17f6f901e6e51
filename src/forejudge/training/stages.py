"""The two stages as modules that a trainer can call: what is put in comes from `batches`, what comes out is a dict."""

from typing import Any

from torch import Tensor, nn

from forejudge.verifiers.yes_no import YesNoModel


class _Stage(nn.Module):
    """Around a model whose output layer may be its input embedding: such a tensor is stored once."""

    def __init__(self, model: YesNoModel) -> None:
        super().__init__()
        self.model = model
        self.register_state_dict_post_hook(_without_second_names)
        self.register_load_state_dict_pre_hook(_with_second_names)


class Alignment(_Stage):
    """Stage 1: the connector is trained, the language model stays."""

    def __init__(self, model: YesNoModel) -> None:
        super().__init__(model)
        model.language_model.requires_grad_(False)

    def forward(self, tokens_NTD: Tensor, left_NL: Tensor, right_NL: Tensor) -> dict[str, Tensor]:
        """Logits (N, L, V) that stand before each token of `right_NL`."""
        embedded_NSE = self.model.embed(tokens_NTD.float(), left_NL, right_NL)
        length = right_NL.shape[1]
        logits_NLV = self.model.language_model(inputs_embeds=embedded_NSE, logits_to_keep=length + 1).logits
        return {"logits_NLV": logits_NLV[:, :-1]}


class Verification(_Stage):
    """Stage 2: yes or no. `answers` are the token numbers of yes and no."""

    def __init__(self, model: YesNoModel, answers: tuple[int, int]) -> None:
        super().__init__(model)
        self.answers = list(answers)

    def forward(self, tokens_NTD: Tensor, left_NL: Tensor, right_NL: Tensor, mask_NL: Tensor) -> dict[str, Tensor]:
        """Log-probabilities of yes and no over the whole vocabulary (N, 2), or the value of a head (N, 1)."""
        answered = self.model(tokens_NTD.float(), left_NL, right_NL, mask_NL)
        return {"answered": answered if self.model.head is not None else answered[:, self.answers]}


def scores(answered: Tensor) -> Tensor:
    """What a verifier says by the output of `Verification`: log-odds of yes, or the head's value: (N,)."""
    return answered[:, 0] if answered.shape[1] == 1 else answered[:, 0] - answered[:, 1]


def _second_names(module: nn.Module) -> dict[str, str]:
    """Further names of tensors that have one already -> that one."""
    first: dict[int, str] = {}
    every = module.named_parameters(remove_duplicate=False)
    return {name: known for name, tensor in every if (known := first.setdefault(id(tensor), name)) != name}


def _without_second_names(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """safetensors refuses two names for one tensor."""
    for name in _second_names(module):
        state.pop(prefix + name, None)


def _with_second_names(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name, known in _second_names(module).items():
        if prefix + known in state:
            state.setdefault(prefix + name, state[prefix + known])
