"""The server and a client for it."""
