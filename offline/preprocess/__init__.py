"""Splits and point-in-time features."""
