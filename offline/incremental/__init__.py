"""Every day: what the day brought, what was learned from it, and whether that goes live."""
