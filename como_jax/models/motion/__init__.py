"""The motion model: inverse dynamics, bottleneck and forward dynamics."""
