"""Training a verifier: labelled candidates, losses, and the stage that learns yes from no."""
