"""Published sizes of generators whose weights are not loaded here."""
