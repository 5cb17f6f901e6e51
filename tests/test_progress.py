import pytest

from forejudge.errors import InvalidRequest
from forejudge.progress import Shard


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_shards_share_all_work_without_overlap(count: int) -> None:
    parts = [list(Shard.parse(f"{number}/{count}").indices(7)) for number in range(1, count + 1)]
    assert sorted(block for part in parts for block in part) == list(range(7))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "1/0", "-1/4", "a/b", "1/4/2", "1.0/2"])
def test_text_that_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=f"shard '{text}': expected NUMBER/COUNT"):
        Shard.parse(text)
