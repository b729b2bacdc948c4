"""Ranking networks: one file per architecture, one registry, shared layers."""
