"""The score with which the published method ranks candidates, for comparison: ours is the log-odds of yes."""

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from forejudge.errors import InvalidRequest
from forejudge.types import Candidates
from forejudge.verifiers.language_model import LanguageModelVerifier


def official_score(p_yes: float, p_no: float, most_likely: str) -> float:
    """+P(yes) where the most likely next token's text contains "yes" in any case, -P(no) otherwise; in [-1, 1].

    It jumps by about 1 where the decision turns, and takes any other token for a no.
    """
    return p_yes if "yes" in most_likely.lower() else -p_no


def official_scores(verifier: LanguageModelVerifier, prompt: str, candidates: Candidates) -> list[float]:
    """`official_score` of each candidate. Raises InvalidRequest for a verifier with a head, which names no token."""
    if verifier.model.head is not None:
        raise InvalidRequest(f"verifier {verifier.name} answers by a head, so the official score says nothing of it")
    p_NV = verifier.answered(prompt, candidates).exp()
    yes, no = verifier.answers
    return [official_score(float(p_V[yes]), float(p_V[no]), _most_likely(p_V, verifier.tokenizer)) for p_V in p_NV]


def _most_likely(p_V: Tensor, tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode([int(p_V.argmax())]))
