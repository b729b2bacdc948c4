"""Text of the rows: a sentence model's files -> the encoder that a release carries, and vectors kept by content."""
