"""The wording put to the language model, as token numbers on both sides of the picture."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from forejudge.errors import CheckpointError

PICTURE = "<image>"
PROMPT = "{prompt}"
PUBLISHED_QUESTION = (
    "You are an AI assistant specializing in image analysis and ranking. Your task is to analyze and compare image "
    "based on how well they match the given prompt. <image> The given prompt is: {prompt}. Please consider the "
    "prompt and the image to make a decision and response directly with 'yes' or 'no'"
)
_MARK = "\u241f"  # stands in for the user's message while the chat template is rendered


def check_question(text: str) -> str:
    """The text itself. Raises ValueError unless it holds `<image>` once and `{prompt}` once after it."""
    before, _, after = text.partition(PICTURE)
    if PROMPT in before or PICTURE in after or after.count(PROMPT) != 1:
        raise ValueError(f"{text!r} must hold {PICTURE} once and {PROMPT} once after it")
    return text


@dataclass(frozen=True)
class Question:
    """A question (see `check_question`), asked through the tokenizer's chat template."""

    text: str
    tokenizer: PreTrainedTokenizerBase

    def tokens_around_picture(self, prompt: str) -> tuple[list[int], list[int]]:
        """Token numbers before and after the picture. Control marks inside the prompt stay plain text."""
        message = [{"role": "user", "content": _MARK}]
        rendered = self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
        opening, closing = rendered.split(_MARK)
        before, after = self.text.split(PICTURE)
        left = self._tokens(opening + before)
        asked = self._tokens(after.replace(PROMPT, prompt), split_special_tokens=True)
        return left, asked + self._tokens(closing)

    def answer(self, text: str) -> list[int]:
        """Token numbers of an answer and of the end of the assistant's turn, as training puts them after a question.

        Raises CheckpointError for a chat template that does not close a turn with text of its own.
        """
        turns = [{"role": "user", "content": ""}, {"role": "assistant", "content": _MARK}]
        rendered = self.tokenizer.apply_chat_template(turns, tokenize=False)
        closing = rendered.split(_MARK)[1].strip()
        if not closing:
            raise CheckpointError("the chat template ends an answer with nothing, expected a mark such as <|im_end|>")
        return self._tokens(text, split_special_tokens=True) + self._tokens(closing)

    def answer_tokens(self) -> tuple[int, int]:
        """The numbers of "yes" and "no". Raises CheckpointError for a tokenizer that needs several for one."""
        yes, no = self._tokens("yes"), self._tokens("no")
        if len(yes) != 1 or len(no) != 1:
            raise CheckpointError(
                f"the tokenizer writes yes as {len(yes)} tokens and no as {len(no)}, expected 1 and 1"
            )
        return yes[0], no[0]

    def _tokens(self, text: str, **options: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, **options).input_ids)
