"""One of several equal parts of a long work, each for a process or a machine of its own."""

from collections.abc import Iterator
from dataclasses import dataclass

from forejudge.errors import InvalidRequest


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, counted from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard of a spelling such as "1/4". Raises InvalidRequest for any other."""
        number, slash, count = text.partition("/")
        if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise InvalidRequest(f"shard {text!r}: expected NUMBER/COUNT, from 1/4 to 4/4 for four of them")

    def of(self, total: int) -> Iterator[int]:
        """Which of `total` things, counted from 0, are this shard's."""
        return iter(range(self.number - 1, total, self.count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
