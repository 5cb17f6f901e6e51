"""FLOPs, memory and time of known work."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from forejudge.generators import load_generator
from forejudge.profiling.measure import StageCost, count_cost, count_flops, peak_memory
from forejudge.profiling.searches import generation_workload, search_costs, search_workloads, stage_flops
from forejudge.types import IMAGE, prefix_stage
from forejudge.verifiers import load_verifier
from tests.support.doubles import ScriptedGenerator, ScriptedVerifier

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
    found = search_costs(generator, verifier, PROMPT, {1: [3.0, 1.0, 2.0], 4: [5.0, 9.0, 6.0]})
    assert found.milliseconds == {1: 2, 4: 6}
    assert found.rounds_ms == {1: (3, 1, 2), 4: (5, 9, 6)}
    assert found.scoring_bytes[8] > 2 * found.scoring_bytes[1]
    stages = stage_flops(generator, {"tiny": verifier}, PROMPT)
    assert found.candidate_flops == pytest.approx(stages["prefix"] + stages["tiny"], rel=0.02)
    once = stages["encode"] + stages["suffix"] + stages["decode"]
    assert found.fixed_flops == pytest.approx(once, rel=0.02)


def test_what_is_timed_searches_and_generates() -> None:
    """A search encodes the prompt every time and finishes one candidate; a baseline generates one image."""
    generator = ScriptedGenerator()
    searches = search_workloads(generator, ScriptedVerifier({}), PROMPT, [1, 3])
    searches[3]()
    searches[3]()
    assert generator.encoded == 2
    assert generator.advanced[-1] == (IMAGE, 1)
    assert (prefix_stage(2), 3) in generator.advanced
    generator.advanced.clear()
    generation_workload(generator, PROMPT, 2)()
    assert generator.advanced == [(IMAGE, 1)]
