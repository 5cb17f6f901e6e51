"""Committed studies of the miniature's verifier."""
