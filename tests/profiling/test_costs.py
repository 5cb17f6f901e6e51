"""FLOPs, memory and time of known work."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from forejudge.generators import load_generator
from forejudge.profiling.measure import StageCost, count_cost, count_flops, peak_memory
from forejudge.profiling.searches import generation_milliseconds, search_costs, stage_flops
from forejudge.progress import Progress
from forejudge.verifiers import load_verifier

CPU = torch.device("cpu")
PROMPT = "a photo of a star"


def test_a_product_counts_two_for_each_multiplication() -> None:
    one, other = torch.ones(3, 5), torch.ones(5, 7)
    assert count_flops(lambda: one @ other) == 2 * 3 * 5 * 7


def test_attention_is_counted_on_a_cpu_too() -> None:
    query_BHTD = torch.ones(2, 3, 4, 8)
    assert (
        count_flops(lambda: F.scaled_dot_product_attention(query_BHTD, query_BHTD, query_BHTD)) == 2 * 2 * 6 * 4 * 4 * 8
    )


def test_weights_count_where_an_operation_reads_them() -> None:
    """A lookup reads a few rows of an embedding; an output layer reads all of them."""
    embedding, unused, layer = nn.Embedding(10, 4), nn.Linear(4, 4), nn.Linear(4, 3)
    modules, ids = nn.ModuleList([embedding, unused, layer]), torch.tensor([1, 2])
    assert count_cost(lambda: layer(embedding(ids)), [modules]) == StageCost(2 * 2 * 4 * 3, 4 * (4 * 3 + 3))
    assert count_cost(lambda: embedding(ids) @ embedding.weight.T, [modules]).weight_bytes == 4 * 10 * 4


def test_the_peak_is_what_is_held_at_once() -> None:
    start = torch.ones(1000)

    def work() -> None:
        held = start
        for _ in range(5):
            held = held + 1  # the one before is let go

    assert peak_memory(work, CPU) == 2 * 4000
    assert peak_memory(lambda: start.view(10, 100).t(), CPU) == 0, "a view holds nothing of its own"


def test_a_search_costs_more_with_more_candidates(tiny_generator: Path, tiny_verifier: Path) -> None:
    generator = load_generator(str(tiny_generator), CPU, torch.float32)
    verifier = load_verifier(str(tiny_verifier), CPU, torch.float32)
    reported: list[Progress] = []
    found = search_costs(generator, verifier, PROMPT, [1, 4], 1, reported.append)
    assert found.milliseconds.keys() == {1, 4}
    assert min(found.milliseconds.values()) > 0
    assert found.scoring_bytes[8] > 2 * found.scoring_bytes[1]
    assert [progress.step for progress in reported] == [1, 2]
    stages = stage_flops(generator, {"tiny": verifier}, PROMPT)
    assert found.candidate_flops == pytest.approx(stages["prefix"] + stages["tiny"], rel=0.02)
    once = stages["encode"] + stages["suffix"] + stages["decode"]
    assert found.fixed_flops == pytest.approx(once, rel=0.02)
    assert generation_milliseconds(generator, PROMPT, 2, 1) > 0
