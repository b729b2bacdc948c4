"""Recall, filter, features, score, re-rank: pure logic over the ports."""
