"""What decides the pictures of a run over many prompts, kept beside them so that two runs do not mix."""

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from forejudge.best_of_n import BestOfN
from forejudge.checkpoint import read_config
from forejudge.cli.request import Request, given
from forejudge.device import dtype_name, resolve_device, resolve_dtype
from forejudge.errors import InvalidRequest
from forejudge.files import write_text
from forejudge.generators import find_spec
from forejudge.generators.base import Sampling

_FILE = "settings.json"


class RunSettings(BaseModel):
    """The library's defaults are filled in. Device and batch size may change from one sitting to the next."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator: str
    verifier: str
    dtype: str
    judge_step: int
    n: int | None
    budget_ms: float | None
    until: float | None
    max_n: int
    seed: int
    seeds: tuple[int, ...] | None
    images_per_prompt: int
    sampling: Sampling

    @classmethod
    def of(cls, request: Request) -> "RunSettings":
        """Raises InvalidRequest for limits and sampling that cannot be."""
        models = _with_defaults(BestOfN.from_pretrained, vars(request.models))
        search = _with_defaults(BestOfN.__call__, vars(request.search))
        limits, spec = request.search.limits(), find_spec(models["generator"])
        return cls(
            generator=_absolute(models["generator"]),
            verifier=_absolute(models["verifier"] or models["generator"]),
            dtype=dtype_name(resolve_dtype(models["dtype"], resolve_device(models["device"]))),
            judge_step=models["judge_step"],
            n=limits.cap if limits.reason_at_cap == "n" else None,
            budget_ms=limits.budget_ms,
            until=limits.until,
            max_n=limits.max_n,
            seed=search["seed"],
            seeds=search["seeds"],
            images_per_prompt=request.images_per_prompt,
            sampling=request.sampling.build(spec.sampling if spec else None),
        )

    def check(self, folder: Path) -> None:
        """Raises InvalidRequest where a folder was made with other settings, naming both values."""
        path = folder / _FILE
        if not path.exists():
            return
        for name, made_with in read_config(path, RunSettings):
            if made_with != getattr(self, name):
                raise InvalidRequest(
                    f"{folder} was made with {name} = {made_with}, this run has {name} = {getattr(self, name)}: "
                    "choose another --out, or the same settings to go on with it"
                )

    def store(self, folder: Path) -> None:
        """Leave these settings in a folder. Raises OutputError."""
        write_text(folder / _FILE, self.model_dump_json(indent=2) + "\n")


def _with_defaults(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    defaults = {name: parameter.default for name, parameter in signature(function).parameters.items()}
    return defaults | given(arguments)


def _absolute(model: str) -> str:
    """The same folder by whatever path; names and hub ids as they are."""
    return str(Path(model).resolve()) if Path(model).is_dir() else model
