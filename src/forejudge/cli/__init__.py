"""The commands and what they show. What a value is by default, and how models work, is decided below."""
