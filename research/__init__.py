"""How the shipped weights, the committed studies and the figures are made; not part of the wheel."""
