"""The part of robosuite's rotations that `como_jax/sim/libero.py` uses."""

import numpy as np

def quat2axisangle(quat: np.ndarray) -> np.ndarray: ...
