"""Tests of the sync: publish, roll back, and what happens when either is cut off."""
