"""Committed figures and images: edges, timing, projected costs, study plots, README images."""
