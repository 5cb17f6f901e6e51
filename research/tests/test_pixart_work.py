"""The work of PixArt-alpha at its full size, against matrix products counted by hand."""

import pytest

from research.published_flops import pixart_512_block_flops

WIDTH, TOKENS, TEXT = 1152, 32 * 32, 120


def test_a_block_is_its_matrix_products() -> None:
    """Two for each weight and token. The text goes through two matrices of cross-attention alone."""
    self_attention = 4 * TOKENS * WIDTH**2 + 2 * TOKENS**2 * WIDTH
    cross_attention = 2 * (TOKENS + TEXT) * WIDTH**2 + 2 * TOKENS * TEXT * WIDTH
    feed_forward = 2 * TOKENS * WIDTH * 4 * WIDTH
    by_hand = 2 * (self_attention + cross_attention + feed_forward)
    assert pixart_512_block_flops() == pytest.approx(by_hand, rel=0.03)
    assert by_hand == pytest.approx(44e9, rel=0.03)
