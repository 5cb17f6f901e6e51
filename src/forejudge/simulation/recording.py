"""Recorded verdicts: an evaluation's outcomes with the costs that price a search, as a folder or as one Parquet file.

The file has a row for each candidate, in the order of cases, seeds and candidates; its metadata holds the `Header`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveInt, ValidationError

from forejudge.candidates.evaluation_store import EvaluationSettings, EvaluationStore
from forejudge.checkpoint import first_line
from forejudge.errors import CheckpointError, InvalidRequest, validation_message
from forejudge.evaluation.metrics import FloatArray
from forejudge.evaluation.policy_costs import PolicyCosts
from forejudge.evaluation.report import FrozenModel
from forejudge.evaluation.strategies import Outcomes, load_outcomes
from forejudge.evaluation.suite import read_costs
from forejudge.expected_improvement import Prior, fit_prior
from forejudge.files import is_dir, write_bytes

_HEADER_KEY = b"forejudge recording"
AnyScalar = TypeVar("AnyScalar", bound=np.generic)
_SCORE, _PROBABILITY = "score of ", "probability of "
_CORRECT_BY, _SECOND_STEP_BY = "correct by ", "second step correct by "


class CandidateFlops(FrozenModel):
    """Operations of one more candidate that a verifier scores, and of the scoring in them."""

    candidate: PositiveInt
    scoring: NonNegativeInt


class Header(FrozenModel):
    """Settings, costs and operations that a recording holds beside its rows."""

    settings: EvaluationSettings
    costs: PolicyCosts
    flops: dict[str, CandidateFlops]


@dataclass(frozen=True)
class Recording:
    """Outcomes of an evaluation, with the costs and priors of its timed verifiers."""

    header: Header
    outcomes: Outcomes

    @property
    def verifiers(self) -> list[str]:
        """Verifiers with probabilities and costs."""
        return [name for name in self.header.costs.verifiers if name in self.outcomes.probability_CSN]

    def prior(self, verifier: str) -> Prior:
        """Return the verifier's own prior, or one that is fitted on these verdicts where it has none."""
        own = self.header.costs.verifiers[verifier].prior
        probability_CSN = self.outcomes.probability_CSN[verifier]
        return own or fit_prior(probability_CSN.reshape(-1, probability_CSN.shape[-1]).tolist())

    def in_orders(self, count: int) -> "Recording":
        """Search each case in `count` orders of its candidates, as further seeds.

        Each begins at another candidate, goes on to the last one and then from the first one: they are as good as new
        for searches that end early.
        """
        outcomes, candidates = self.outcomes, self.outcomes.candidates
        order_KN = (np.arange(candidates) + candidates * np.arange(count)[:, None] // count) % candidates

        def reordered(table_CSN: NDArray[AnyScalar]) -> NDArray[AnyScalar]:
            return np.concatenate([table_CSN[..., order_N] for order_N in order_KN], axis=1)

        def all_reordered(tables: Mapping[str, NDArray[AnyScalar]]) -> dict[str, NDArray[AnyScalar]]:
            return {name: reordered(table_CSN) for name, table_CSN in tables.items()}

        second_step_CSN = outcomes.second_step_correct_CSN
        reordered_outcomes = replace(
            outcomes,
            correct_CSN=reordered(outcomes.correct_CSN),
            score_CSN=all_reordered(outcomes.score_CSN),
            probability_CSN=all_reordered(outcomes.probability_CSN),
            second_correct_CSN=all_reordered(outcomes.second_correct_CSN),
            second_step_correct_CSN=None if second_step_CSN is None else reordered(second_step_CSN),
            second_step_second_correct_CSN=all_reordered(outcomes.second_step_second_correct_CSN),
        )
        return Recording(self.header, reordered_outcomes)

    def write(self, path: Path) -> None:
        """Write the recording as one file. Raises OutputError."""
        outcomes = self.outcomes
        _, seeds, candidates = outcomes.correct_CSN.shape
        columns: dict[str, Any] = {
            "prompt": pa.array(np.repeat(outcomes.prompts, seeds * candidates)).dictionary_encode(),
            "task": pa.array(np.repeat(outcomes.tasks, seeds * candidates)).dictionary_encode(),
            "correct": outcomes.correct_CSN.ravel(),
        }
        if outcomes.second_step_correct_CSN is not None:
            columns["second_step_correct"] = _yes_or_no(outcomes.second_step_correct_CSN)
        columns |= {_CORRECT_BY + name: table.ravel() for name, table in outcomes.second_correct_CSN.items()}
        for name, table in outcomes.second_step_second_correct_CSN.items():
            columns[_SECOND_STEP_BY + name] = _yes_or_no(table)
        columns |= {_SCORE + name: scores.ravel() for name, scores in outcomes.score_CSN.items()}
        columns |= {_PROBABILITY + name: values.ravel() for name, values in outcomes.probability_CSN.items()}
        table = pa.table(columns).replace_schema_metadata({_HEADER_KEY: self.header.model_dump_json().encode()})
        content = BytesIO()
        pq.write_table(table, content, compression="zstd", write_page_checksum=True)
        write_bytes(path, content.getvalue())


def load_recording(path: Path) -> Recording:
    """Read a folder of `forejudge eval --record-for simulate`, or a file that `Recording.write` wrote.

    Raises CheckpointError for one that is not finished, damaged or has no costs; InvalidRequest for no such path.
    """
    if is_dir(path):
        return _load_folder(path)
    try:
        table = pq.read_table(BytesIO(path.read_bytes()), page_checksum_verification=True)
        header = Header.model_validate_json((table.schema.metadata or {})[_HEADER_KEY])
        return Recording(header, _outcomes(table, header.settings))
    except FileNotFoundError:
        raise InvalidRequest(f"{path} is not there: expected a folder of `forejudge eval`, or a recording") from None
    except ValidationError as error:
        raise CheckpointError(f"{path}: {validation_message(error)}; record the verdicts again") from None
    except Exception as error:  # pyarrow raises many types
        raise CheckpointError(f"{path} is no recording of verdicts ({first_line(error)}): record them again") from None


def _load_folder(folder: Path) -> Recording:
    costs, outcomes = read_costs(folder), load_outcomes(EvaluationStore(folder))
    flops = {
        name: CandidateFlops(candidate=search.candidate_flops, scoring=costs.stage_flops[name])
        for name, search in costs.searches.items()
    }
    return Recording(
        Header(settings=EvaluationStore(folder).settings, costs=PolicyCosts.read(folder), flops=flops), outcomes
    )


def _yes_or_no(correct_CSN: FloatArray) -> pa.Array:
    """Return 1 and 0 as booleans, and nan as null."""
    return pa.array(correct_CSN.ravel() == 1, mask=np.isnan(correct_CSN.ravel()))


def _outcomes(table: pa.Table, settings: EvaluationSettings) -> Outcomes:
    shape = settings.prompts * settings.images_per_prompt, settings.seeds, settings.candidates

    def values(name: str, dtype: type) -> Any:
        return table[name].to_numpy().astype(dtype).reshape(shape)

    def named(prefix: str, dtype: type = np.float64) -> dict[str, Any]:
        names = [name for name in table.column_names if name.startswith(prefix)]
        return {name.removeprefix(prefix): values(name, dtype) for name in names}

    def of_cases(name: str) -> Sequence[str]:
        texts: list[str] = table[name].to_pylist()[:: settings.seeds * settings.candidates]
        return texts

    has_second_step = "second_step_correct" in table.column_names
    return Outcomes(
        prompts=of_cases("prompt"),
        tasks=of_cases("task"),
        correct_CSN=values("correct", np.bool_),
        score_CSN=named(_SCORE),
        probability_CSN=named(_PROBABILITY),
        second_correct_CSN=named(_CORRECT_BY, np.bool_),
        second_step_correct_CSN=values("second_step_correct", np.float64) if has_second_step else None,
        second_step_second_correct_CSN=named(_SECOND_STEP_BY),
    )
