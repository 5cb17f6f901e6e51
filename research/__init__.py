"""Rebuild the miniature's weights, the committed studies and every figure: `python -m research --help`.

Not part of the wheel. This folder imports forejudge, never the reverse.
"""
