"""Rows of a scene as they come in files and uploads: their schema, and parsers from every format to Arrow record batches."""
