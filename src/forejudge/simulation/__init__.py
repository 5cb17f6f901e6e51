"""Simulation of search policies on recorded verdicts: quality against mean cost in seconds, without models."""
