"""The miniature: a small world and a real SANA-Sprint that generates it, so that everything runs on a laptop."""
