"""Prompts that a generator can draw."""

from transformers import PreTrainedTokenizerBase

from forejudge.errors import InvalidRequest


def check_prompt(
    prompt: str, text: str, tokenizer: PreTrainedTokenizerBase, tokens_before: int, max_tokens: int
) -> None:
    """`text` is what the text encoder gets: the prompt after `tokens_before` tokens of an instruction.

    Raises InvalidRequest for an empty prompt, and for one of more than `max_tokens` tokens, whose end would be cut.
    """
    if not prompt.strip():
        raise InvalidRequest("the prompt is empty: say what the picture should show")
    tokens = tokenizer(text).input_ids
    lost = tokens[tokens_before + max_tokens :]
    if lost:
        raise InvalidRequest(
            f"the prompt has {len(tokens) - tokens_before} tokens and the text encoder takes {max_tokens}; "
            f"this would be cut: {tokenizer.decode(lost)[:80]!r}"
        )
