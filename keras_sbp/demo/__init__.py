"""The demonstrations: their data, networks and training, and the whole journey with them."""
