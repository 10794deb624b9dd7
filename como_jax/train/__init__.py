"""The training machine: state, optimizer, step, checkpoints and the one loop.

It knows nothing of motion or policies.
"""
