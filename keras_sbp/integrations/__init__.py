"""Bridges to other packages; each is imported by its own name."""
