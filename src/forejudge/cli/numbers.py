"""Lists of numbers as options spell them."""

from forejudge.errors import InvalidRequest


def whole_numbers(option: str, text: str) -> list[int]:
    """Sorted, each once. Raises InvalidRequest unless all are whole numbers from 1."""
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise InvalidRequest(f"{option} {text!r} is not a list of numbers from 1, such as 1,2,4,8")
    return found
