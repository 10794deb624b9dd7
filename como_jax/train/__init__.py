"""The training machine: state, optimiser, step, checkpoints and the one loop.

It knows nothing of motion or policies.
"""
