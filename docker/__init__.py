"""The stack of real servers on Docker, and each server's configuration."""
