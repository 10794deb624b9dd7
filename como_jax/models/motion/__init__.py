"""The motion model: inverse dynamics (two frames to a latent), bottleneck, forward dynamics (frame,
latent to next).
"""
