"""Seconds by stage."""

import pytest
import torch
from tests.doubles import CPU, FakeTime

from forejudge.clock import StageClock


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr("forejudge.clock.perf_counter", fake)
    return fake


def test_stages_add_up_and_time_between_them_counts_to_none(fake_time: FakeTime) -> None:
    clock = StageClock(CPU)
    for seconds in (1.0, 0.5):
        with clock.stage("prefix"):
            fake_time.passes(seconds)
        fake_time.passes(0.25)
    with clock.stage("decode"):
        fake_time.passes(2.0)
    assert clock.seconds == {"prefix": 1.5, "decode": 2.0}
    assert clock.elapsed == 4.0


def test_a_stage_that_fails_has_taken_its_time_too(fake_time: FakeTime) -> None:
    clock = StageClock(CPU)

    def fail_after_3_seconds() -> None:
        with clock.stage("prefix"):
            fake_time.passes(3.0)
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        fail_after_3_seconds()
    assert clock.seconds == {"prefix": 3.0}


@pytest.mark.gpu
def test_on_a_gpu_a_stage_ends_when_its_work_has_ended() -> None:
    clock = StageClock(torch.device("cuda"))
    matrix = torch.randn(8192, 8192, device="cuda")
    with clock.stage("asked for and done"):
        for _ in range(20):
            matrix @ matrix
    before = clock.elapsed
    torch.cuda.synchronize()
    assert clock.elapsed - before < 0.1 * clock.seconds["asked for and done"]
