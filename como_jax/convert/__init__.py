"""Weights from and to other code bases: read without running their code, renamed by rules, every
leaf used once.
"""
