"""The ports and one adapter per backend."""
