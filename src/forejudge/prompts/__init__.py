"""Prompt files and GenEval's prompt grammar."""
