"""What a detector says of a picture; every detector, real or miniature, answers in this noun."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) in pixels, y pointing down."""


@dataclass(frozen=True)
class Detection:
    """One object found in one picture.

    `confidence` lies in [0, 1]; `color` is one of GenEval's ten names, None where it was not
    read; `mask` is a boolean (height, width) array of the whole picture, not part of equality.
    """

    class_name: str
    box: Box
    confidence: float
    color: str | None = None
    mask: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
