"""Stubs of robosuite 1.4."""
