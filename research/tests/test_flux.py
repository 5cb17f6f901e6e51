"""The work of FLUX at its full size, against matrix products counted by hand."""

import pytest

from research.published_flops import FluxFlops, flux2_klein_flops, flux_schnell_flops

WIDTH, TOKENS = 3072, 4096


@pytest.fixture(scope="module")
def schnell() -> FluxFlops:
    return flux_schnell_flops()


@pytest.fixture(scope="module")
def klein() -> FluxFlops:
    return flux2_klein_flops()


def products(tokens: int, squares: int) -> int:
    """Count FLOPs of tokens through `squares` matrices of width x width, and of attention among all tokens."""
    return 2 * squares * WIDTH**2 * tokens + 4 * tokens**2 * WIDTH


def test_blocks_of_flux_1_are_their_matrix_products(schnell: FluxFlops) -> None:
    """Queries, keys, values, output and a feed-forward of four widths; in single-stream blocks put together."""
    by_hand = products(TOKENS + 256, 3 + 1 + 4 + 4)
    blocks = schnell.transformer.blocks
    assert len(blocks) == 19 + 38
    assert set(blocks) == {blocks[0], blocks[-1]}
    assert blocks[0] == pytest.approx(by_hand, rel=0.03)
    assert blocks[-1] == pytest.approx(by_hand, rel=0.03)


def test_blocks_of_flux_2_are_their_matrix_products(klein: FluxFlops) -> None:
    """A feed-forward of three widths that is gated: its first matrix is twice as wide."""
    by_hand = products(TOKENS + 512, 3 + 1 + 6 + 3)
    blocks = klein.transformer.blocks
    assert len(blocks) == 5 + 20
    assert blocks[0] == pytest.approx(by_hand, rel=0.03)
    assert blocks[-1] == pytest.approx(by_hand, rel=0.03)


def test_the_work_of_the_published_models(schnell: FluxFlops, klein: FluxFlops) -> None:
    """In TFLOP, by PyTorch's own counter."""
    found = [
        [round(each / 1e12, 2) for each in (work.encode, work.transformer.total, work.decode)]
        for work in (schnell, klein)
    ]
    assert found == [[2.4, 69.47, 10.47], [4.27, 34.82, 10.47]]
    work = schnell.transformer
    assert work.prefix_flops(0) == work.before
    assert work.prefix_flops(57) + work.after == work.total
    assert work.total == pytest.approx(57 * products(TOKENS + 256, 12), rel=0.03)
