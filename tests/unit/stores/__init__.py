"""Tests of the adapters, where they promise more than their port."""
