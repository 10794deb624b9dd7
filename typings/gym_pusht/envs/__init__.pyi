"""See `pusht`."""
