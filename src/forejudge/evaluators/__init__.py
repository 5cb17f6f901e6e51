"""Evaluators: decide whether a finished image fits its prompt."""
