"""Readers of raw logs; every dataset ends in the same three canonical tables."""
