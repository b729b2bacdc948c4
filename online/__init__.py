"""A request -> a ranked list."""
