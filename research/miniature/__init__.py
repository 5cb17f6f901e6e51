"""Train every weight of the miniature, part by part, from one recipe."""
