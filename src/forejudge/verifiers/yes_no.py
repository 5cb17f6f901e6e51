"""Embeddings in, log-probabilities of yes and no out: one forward pass of a causal language model."""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from forejudge.verifiers.connector import Connector


class YesNoModel(nn.Module):
    """A connector and a language model that reads its output between two runs of text tokens."""

    def __init__(self, connector: Connector, language_model: PreTrainedModel) -> None:
        super().__init__()
        self.connector, self.language_model = connector, language_model

    def forward(self, hidden_NTD: Tensor, left_NL: Tensor, right_NL: Tensor, mask_NL: Tensor | None = None) -> Tensor:
        """Log-probabilities of the next token over the whole vocabulary: (N, V), in float32.

        `right_NL` may be padded on its right; `mask_NL` of its shape then says which tokens count.
        """
        embed = self.language_model.get_input_embeddings()
        picture_NTE = self.connector(hidden_NTD)
        inputs = torch.cat([embed(left_NL), picture_NTE, embed(right_NL)], dim=1)
        if mask_NL is None:
            logits_NV = self.language_model(inputs_embeds=inputs, logits_to_keep=1).logits[:, -1]
        else:
            # Causal attention: what follows the last real token cannot change it.
            last_N = inputs.shape[1] - right_NL.shape[1] + mask_NL.sum(1) - 1
            states = self.language_model.base_model(inputs_embeds=inputs).last_hidden_state
            chosen_NE = states[torch.arange(len(states)), last_N]
            logits_NV = self.language_model.get_output_embeddings()(chosen_NE)
        return logits_NV.float().log_softmax(-1)
