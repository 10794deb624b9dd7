"""Converts weights of other code bases.

Files are read without running their code, and leaves are renamed by rules. Each leaf is used once.
"""
