"""Prompts that a generator can draw."""

from transformers import PreTrainedTokenizerBase

from forejudge.errors import InvalidRequest


def check_prompt(
    prompt: str,
    text: str,
    tokenizer: PreTrainedTokenizerBase,
    tokens_before: int,
    max_tokens: int,
    tokens_after: int = 0,
) -> None:
    """`text` is what the text encoder gets: the prompt after `tokens_before` tokens of an instruction.

    `tokens_after` of its tokens (an end mark) follow the prompt however much of it is cut. Raises InvalidRequest for
    an empty prompt, and for one of more than `max_tokens` tokens, marks included, whose end would be cut.
    """
    check_not_empty(prompt)
    tokens = tokenizer(text).input_ids
    lost = tokens[tokens_before + max_tokens - tokens_after : len(tokens) - tokens_after]
    if lost:
        raise InvalidRequest(
            f"the prompt has {len(tokens) - tokens_before} tokens and the text encoder takes {max_tokens}; "
            f"this would be cut: {tokenizer.decode(lost)[:80]!r}"
        )


def check_not_empty(prompt: str) -> None:
    """Raises InvalidRequest for a prompt of blanks."""
    if not prompt.strip():
        raise InvalidRequest("the prompt is empty: say what the picture should show")
