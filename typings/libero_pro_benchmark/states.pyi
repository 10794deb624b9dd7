"""Fixed initial states."""

import pathlib

import numpy as np

def load_initial_states(path: pathlib.Path) -> np.ndarray: ...
