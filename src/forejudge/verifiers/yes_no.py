"""Picture tokens in, an answer out: one forward pass of a causal language model."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from forejudge.compiling import with_compiled_layers
from forejudge.verifiers.connector import Connector
from forejudge.verifiers.exact_buffers import ExactBuffers


class YesNoModel(ExactBuffers):
    """A connector and a language model that reads its output between two runs of text tokens.

    With a `head` (hidden size to 1) the answer is a number read off the last hidden state instead of a next token.
    """

    def __init__(self, connector: Connector, language_model: PreTrainedModel, head: nn.Linear | None = None) -> None:
        super().__init__()
        self.connector, self.language_model, self.head = connector, language_model, head

    def forward(self, tokens_NTD: Tensor, left_NL: Tensor, right_NL: Tensor, mask_NL: Tensor | None = None) -> Tensor:
        """Log-probabilities of the next token over the whole vocabulary (N, V), or the head's value (N, 1); float32.

        `right_NL` may be padded on its right; `mask_NL` of its shape then says which tokens count. Attention is
        causal: what follows the last real token cannot change it.
        """
        embedded_NSE = self.embed(tokens_NTD, left_NL, right_NL)
        padding_N = None if mask_NL is None else (mask_NL == 0).sum(1)
        if self.head is not None:
            decoder = self.language_model.get_decoder()
            states_NSE = decoder(inputs_embeds=embedded_NSE, use_cache=False).last_hidden_state
            return self.head(_last(states_NSE, padding_N)).float()
        # Without a mask nothing is asked of the device here: it may still be busy with what comes before.
        kept = 1 if padding_N is None else int(padding_N.max()) + 1
        logits_NKV = self.language_model(inputs_embeds=embedded_NSE, logits_to_keep=kept, use_cache=False).logits
        return _last(logits_NKV, padding_N).float().log_softmax(-1)

    def compiled(self) -> "YesNoModel":
        """The same weights, the language model's layers compiled."""
        return YesNoModel(self.connector, with_compiled_layers(self.language_model), self.head).train(self.training)

    def embed(self, tokens_NTD: Tensor, left_NL: Tensor, right_NL: Tensor) -> Tensor:
        """What the language model reads: text, picture, text, each token as its embedding (N, S, E)."""
        embedding = self.language_model.get_input_embeddings()
        return torch.cat([embedding(left_NL), self.connector(tokens_NTD), embedding(right_NL)], dim=1)


def _last(values_NSE: Tensor, padding_N: Tensor | None) -> Tensor:
    """Of each row what stands before its padding: (N, E)."""
    if padding_N is None:
        return values_NSE[:, -1]
    return values_NSE[torch.arange(len(values_NSE), device=values_NSE.device), -1 - padding_N]
