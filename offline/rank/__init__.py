"""Feature encoding, training, evaluation and export of the ranker."""
