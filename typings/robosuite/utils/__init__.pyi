"""Stubs of its helpers."""
