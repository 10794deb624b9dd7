"""Policies: observation and instruction in, chunks of actions and of latent motion out."""
