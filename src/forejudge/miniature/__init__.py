"""A small world and a real SANA-Sprint that draws it: everything runs on a laptop, with no download."""
