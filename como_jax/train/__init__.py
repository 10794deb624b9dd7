"""Training: state, optimizer, step, checkpoints and the training loop.

Nothing here depends on motion models or policies.
"""
