"""See the package."""

import numpy as np
from pygame import Surface

def pixels3d(surface: Surface) -> np.ndarray: ...
