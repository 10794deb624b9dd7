"""Stubs of its environments."""
