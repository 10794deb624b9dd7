"""Environments of LIBERO."""
