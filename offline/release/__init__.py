"""Everything that online needs, packed into one immutable folder, with a report."""
