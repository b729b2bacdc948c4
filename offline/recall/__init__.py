"""Recall channels and their evaluation."""
