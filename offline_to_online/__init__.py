"""A release -> the online stores."""
