"""Picture tokens in, an answer out: one forward pass of a causal language model."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

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
        rows = torch.arange(len(embedded_NSE), device=embedded_NSE.device)
        length_N = rows.new_full((len(rows),), right_NL.shape[1]) if mask_NL is None else mask_NL.sum(1)
        if self.head is not None:
            states_NSE = self.language_model.get_decoder()(inputs_embeds=embedded_NSE).last_hidden_state
            return self.head(states_NSE[rows, length_N - right_NL.shape[1] - 1]).float()
        kept = int(right_NL.shape[1] - length_N.min()) + 1
        logits_NKV = self.language_model(inputs_embeds=embedded_NSE, logits_to_keep=kept).logits
        return logits_NKV[rows, length_N - right_NL.shape[1] - 1].float().log_softmax(-1)

    def embed(self, tokens_NTD: Tensor, left_NL: Tensor, right_NL: Tensor) -> Tensor:
        """What the language model reads: text, picture, text, each token as its embedding (N, S, E)."""
        embedding = self.language_model.get_input_embeddings()
        return torch.cat([embedding(left_NL), self.connector(tokens_NTD), embedding(right_NL)], dim=1)
