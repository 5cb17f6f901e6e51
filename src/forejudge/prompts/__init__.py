"""Prompts: files of them, and the grammar of GenEval."""
