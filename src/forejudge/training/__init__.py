"""Training a verifier on labeled candidates: recipes, losses, the two stages, and studies of one choice."""
