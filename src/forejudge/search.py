"""The search: generate, score, keep the best, and finish the winner from where it stands.

The loop depends on no concrete generator, verifier or policy. "Generate" means up to the stage that the verifier reads.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from PIL.Image import Image

from forejudge.device import free_memory, is_out_of_memory
from forejudge.diversity import diverse_order
from forejudge.errors import BrokenImage
from forejudge.policies import SearchPolicy, SearchState, StopReason
from forejudge.session import PromptSession
from forejudge.types import BROKEN, Candidates, Verdict

DEFAULT_MAX_BATCH_SIZE = 32
OnProgress = Callable[[int, int], None]
"""Receives the number of candidates scored and the most there can be."""


@dataclass(frozen=True)
class SearchOutput:
    """Outcome of a search: the verdicts of the candidates used, their indices from best to worst, and the best images.

    `images` maps candidate indices to images, best first, without the `broken` ones, which are not finite; those of
    the `refined` ones took one denoising step more.
    `batch_timings` lists size and seconds of each batch, `timings` seconds by stage.
    """

    verdicts: tuple[Verdict, ...]
    order: tuple[int, ...]
    images: dict[int, Image]
    broken: tuple[int, ...]
    refined: tuple[int, ...]
    stopped_by: StopReason
    num_generated: int
    batch_timings: tuple[tuple[int, float], ...]
    timings: dict[str, float]


class _ScoredBatch(NamedTuple):
    """Candidates, their verdicts, and the seconds both took; `is_reduced` if memory ran out for a larger batch."""

    candidates: Candidates
    verdicts: list[Verdict]
    seconds: float
    is_reduced: bool = False


def search(
    session: PromptSession,
    policy: SearchPolicy,
    seeds: Sequence[int],
    *,
    top_k: int = 1,
    refine_below: float = 0.0,
    diverse: float = 0.0,
    max_batch_size: int = DEFAULT_MAX_BATCH_SIZE,
    on_progress: OnProgress | None = None,
) -> SearchOutput:
    """Score batches of candidates until the policy stops, then finish the `top_k` best.

    Those whose probability is below `refine_below` are finished in one denoising step more. With a weight `diverse`
    above 0 the best come in the order of `diverse_order`; the session has to pool hidden states for it, and all
    candidates are kept.

    `seeds` are those of all candidates there can be; a policy that asks for more is stopped by `max_n`. Where memory
    runs out, batches are halved from then on. In place of a broken image the next best candidate is finished; raises
    BrokenImage if all of them are broken.
    """
    state = SearchState(max_batch_size, session.clock.elapsed)
    while (size := policy.next_batch(state)) and state.num_generated < len(seeds):
        batch_seeds = tuple(seeds[state.num_generated : state.num_generated + size])
        keep = len(seeds) if diverse else top_k
        state = _extend(state, _score_batch(session, batch_seeds), policy, keep, session.clock.elapsed)
        if on_progress:
            on_progress(len(state.verdicts), len(seeds))
    ranking = _ranking(session, state, seeds, diverse)
    images, broken = _finish_best(session, state, seeds, ranking, top_k, refine_below)
    return SearchOutput(
        verdicts=state.verdicts,
        order=order_by_score(state.verdicts),
        images=images,
        broken=broken,
        refined=tuple(index for index in images if is_doubtful(state.verdicts[index], refine_below)),
        stopped_by="max_n" if size else policy.stopped_by(state),
        num_generated=state.num_generated,
        batch_timings=state.batch_timings,
        timings=session.clock.seconds | {"total": session.clock.elapsed},
    )


def _ranking(session: PromptSession, state: SearchState, seeds: Sequence[int], diverse: float) -> Iterable[int]:
    """Return the candidates that are not broken in the order in which they are finished."""
    order = [index for index in order_by_score(state.verdicts) if state.verdicts[index] != BROKEN]
    if not diverse or not order:
        return order
    # Without those of broken candidates, which may not be finite.
    pooled_ND = torch.stack([session.pooled[seeds[index]] for index in order]).double().numpy()
    probability_N = [state.verdicts[index].probability or 0.0 for index in order]
    return (order[rank] for rank in diverse_order(range(len(order)), probability_N, pooled_ND, diverse))


def _finish_best(
    session: PromptSession,
    state: SearchState,
    seeds: Sequence[int],
    ranking: Iterable[int],
    top_k: int,
    refine_below: float,
) -> tuple[dict[int, Image], tuple[int, ...]]:
    """Finish the first `top_k` of `ranking` whose images are not broken; return the images and the broken candidates.

    A candidate that was not kept is generated again from its seed.
    """
    images: dict[int, Image] = {}
    broken = [index for index, verdict in enumerate(state.verdicts) if verdict == BROKEN]
    for index in ranking:
        if len(images) == top_k:
            break
        try:
            candidate = state.best.get(index) or session.score((seeds[index],))[0]
            images[index] = session.finish(candidate, refine=is_doubtful(state.verdicts[index], refine_below))
        except BrokenImage:
            broken.append(index)
    if not images:
        raise BrokenImage(seeds[broken[0]], f"none of {len(broken)} candidates gives an image: ")
    return images, tuple(broken)


def is_doubtful(verdict: Verdict, refine_below: float) -> bool:
    """Return whether an image is finished in one denoising step more: its probability is below `refine_below`."""
    return (verdict.probability or 0.0) < refine_below


def order_by_score(verdicts: Sequence[Verdict]) -> tuple[int, ...]:
    """Return candidate indices from best to worst; ties go to the earlier candidate."""
    return tuple(sorted(range(len(verdicts)), key=lambda index: (-verdicts[index].score, index)))


def _score_batch(session: PromptSession, seeds: tuple[int, ...]) -> _ScoredBatch:
    """Generate and score a batch. If memory runs out, score its first half instead, and so on."""
    start = session.clock.elapsed
    try:
        candidates, verdicts = session.score(seeds)
        return _ScoredBatch(candidates, verdicts, session.clock.elapsed - start)
    except RuntimeError as error:
        if len(seeds) == 1 or not is_out_of_memory(error):
            raise
    # Out here the error is gone, and with it the tensors that its traceback kept alive.
    free_memory()
    return _score_batch(session, seeds[: len(seeds) // 2])._replace(is_reduced=True)


def _extend(state: SearchState, batch: _ScoredBatch, policy: SearchPolicy, keep: int, elapsed: float) -> SearchState:
    """Add a batch, up to the candidate that stops the search, and keep only the `keep` best candidates."""
    before = state.num_generated
    extended = state.extended(batch.verdicts, policy, batch.seconds, elapsed)
    return replace(
        extended,
        max_batch_size=len(batch.verdicts) if batch.is_reduced else state.max_batch_size,
        best={
            index: state.best[index] if index < before else batch.candidates[[index - before]]
            for index in order_by_score(extended.verdicts)[:keep]
        },
    )
