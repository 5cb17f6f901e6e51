"""Candidates of many prompts: one collector and one store."""
