"""Question put to the language model, as token ids on both sides of the image."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from forejudge.errors import CheckpointError
from forejudge.library_models import check_chat_template

IMAGE_PLACEHOLDER = "<image>"
PROMPT_PLACEHOLDER = "{prompt}"
PUBLISHED_QUESTION = (
    "You are an AI assistant specializing in image analysis and ranking. Your task is to analyze and compare image "
    "based on how well they match the given prompt. <image> The given prompt is: {prompt}. Please consider the "
    "prompt and the image to make a decision and response directly with 'yes' or 'no'"
)
_MESSAGE_PLACEHOLDER = "\u241f"  # stands in for the user's message while the chat template is rendered


def check_question(text: str) -> str:
    """Return the text. Raises ValueError unless it holds `<image>` once and `{prompt}` once after it."""
    before, _, after = text.partition(IMAGE_PLACEHOLDER)
    if PROMPT_PLACEHOLDER in before or IMAGE_PLACEHOLDER in after or after.count(PROMPT_PLACEHOLDER) != 1:
        raise ValueError(f"{text!r} must hold {IMAGE_PLACEHOLDER} once and {PROMPT_PLACEHOLDER} once after it")
    return text


@dataclass(frozen=True)
class Question:
    """Question (see `check_question`) in the chat template of a tokenizer."""

    text: str
    tokenizer: PreTrainedTokenizerBase

    def __post_init__(self) -> None:
        """Raise CheckpointError for a chat template that is missing, fails, or puts nothing before a message."""
        check_chat_template(self.tokenizer)
        left, _ = self.tokens_around_image("")
        if not left:
            raise CheckpointError(
                f"{self.tokenizer.name_or_path}: the tokenizer's chat template (chat_template.jinja) puts nothing "
                "before a message: expected a token such as <|im_start|>"
            )

    def tokens_around_image(self, prompt: str) -> tuple[list[int], list[int]]:
        """Return token ids before and after the image. Control tokens written in the prompt stay plain text."""
        message = [{"role": "user", "content": _MESSAGE_PLACEHOLDER}]
        rendered = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        opening, closing = rendered.split(_MESSAGE_PLACEHOLDER)
        before, after = self.text.split(IMAGE_PLACEHOLDER)
        left = self._tokens(opening + before)
        prompt_ids = self._tokens(after.replace(PROMPT_PLACEHOLDER, prompt), split_special_tokens=True)
        return left, prompt_ids + self._tokens(closing)

    def encode_answer(self, text: str) -> list[int]:
        """Return token ids of an answer and of the end of the assistant's turn, the target of training.

        Raises CheckpointError for a chat template that does not close a turn with a token.
        """
        turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": _MESSAGE_PLACEHOLDER}]
        rendered = self.tokenizer.apply_chat_template(turns, tokenize=False)
        closing = rendered.split(_MESSAGE_PLACEHOLDER)[1].strip()
        if not closing:
            raise CheckpointError(
                "the chat template closes an answer with nothing: expected a token such as <|im_end|>"
            )
        return self._tokens(text, split_special_tokens=True) + self._tokens(closing)

    def answer_token_ids(self) -> tuple[int, int]:
        """Return the ids of "yes" and "no". Raises CheckpointError for a tokenizer that splits either."""
        yes, no = self._tokens("yes"), self._tokens("no")
        if len(yes) != 1 or len(no) != 1:
            raise CheckpointError(
                f"the tokenizer writes yes as {len(yes)} tokens and no as {len(no)}: expected one token each"
            )
        return yes[0], no[0]

    def _tokens(self, text: str, **options: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, **options).input_ids)
