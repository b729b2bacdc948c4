"""Raw log -> a release. Needs no server."""
