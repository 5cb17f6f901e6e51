"""See research/__init__.py."""
