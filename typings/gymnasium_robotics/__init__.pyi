"""Stubs of gymnasium-robotics 1.4."""
