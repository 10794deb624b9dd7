"""Headless MuJoCo rendering: choice of a working OpenGL backend, and checks of the frames.

MuJoCo reads its backend from MUJOCO_GL while it is imported, so `choose_backend` must run before
`import mujoco`.
"""

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

from como_jax import errors

if TYPE_CHECKING:
  import mujoco

PACKAGES = {"egl": "libegl1 libegl-mesa0 libgl1-mesa-dri", "osmesa": "libosmesa6"}

# Some drivers can be imported and create a context but draw nothing, so the probe checks pixels.
# os._exit avoids a harmless EGLError that PyOpenGL prints while the interpreter shuts down.
_PROBE = """
import os, mujoco
model = mujoco.MjModel.from_xml_string(
  '<mujoco><worldbody><light pos="0 0 3"/><geom size=".5" rgba="1 0 0 1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
os._exit(0 if renderer.render().std() > 1 else 3)
"""


def choose_backend() -> str:
  """Sets MUJOCO_GL to the first backend that renders a test image: EGL, then OSMesa.

  A value that is already set stays.

  Returns:
    The backend's name.

  Raises:
    UserError: no backend works; the message names the Debian packages to install.
  """
  chosen = os.environ.get("MUJOCO_GL")
  if chosen or "mujoco" in sys.modules:
    # MuJoCo has already chosen a backend (a window system); the renderer reports a failure
    return chosen or "default"
  reasons = []
  for backend in PACKAGES:
    environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    probe = subprocess.run(
      [sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True
    )
    if probe.returncode == 0:
      os.environ["MUJOCO_GL"] = backend
      return backend
    lines = probe.stderr.strip().splitlines()
    reasons.append(f"{backend}: {lines[-1] if lines else f'exit code {probe.returncode}'}")
  raise errors.UserError(
    "no headless OpenGL works for MuJoCo (" + "; ".join(reasons) + "): run "
    f"`apt-get install -y {PACKAGES['egl']}` or `apt-get install -y {PACKAGES['osmesa']}`"
  )


class Renderer:
  """Fast renderer of a compiled MuJoCo model: no shadows, no anti-aliasing, no reflections.

  This is 5 to 25 times faster on software OpenGL. The first frame creates the context, so a
  simulator that never renders needs no OpenGL.
  """

  def __init__(
    self, model: "mujoco.MjModel", size: int, name: str, *, hidden: tuple[int, ...] = ()
  ):
    """Prepares the model for rendering; creates no context.

    Args:
      model: compiled.
      size: height and width, pixels.
      name: simulator and task, for messages.
      hidden: groups of geoms that are not rendered (collision shapes).
    """
    model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
    model.vis.global_.offwidth = max(model.vis.global_.offwidth, size)
    model.vis.global_.offheight = max(model.vis.global_.offheight, size)
    self._model, self._size, self._name, self._hidden = model, size, name, hidden
    self._renderer: mujoco.Renderer | None = None

  def frame(self, data: "mujoco.MjData", camera: "str | mujoco.MjvCamera") -> np.ndarray:
    """Renders one frame.

    Args:
      data: state of the model.
      camera: a name, or a free camera.

    Returns:
      uint8 [H, W, 3], top row first.

    Raises:
      UserError: the OpenGL context cannot be created.
    """
    import mujoco

    if self._renderer is None:
      try:
        self._renderer = mujoco.Renderer(self._model, self._size, self._size)
      except Exception as error:  # each backend raises its own exceptions
        raise errors.UserError(
          f"{self._name}: MuJoCo cannot render here ({type(error).__name__}: {error}). Unset "
          "MUJOCO_GL, import como_jax.sim before mujoco, or `apt-get install -y "
          f"{PACKAGES['egl']}`"
        ) from error
    option = mujoco.MjvOption()
    option.geomgroup[list(self._hidden)] = 0
    self._renderer.update_scene(data, camera=camera, scene_option=option)
    self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
    self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
    return self._renderer.render().copy()

  def close(self) -> None:
    """Frees the context; the next `frame` creates a new one (needed after texture changes)."""
    if self._renderer is not None:
      self._renderer.close()
      self._renderer = None


def check_frames(frames: np.ndarray, what: str) -> None:
  """Rejects the frames that broken OpenGL contexts return without an error.

  Args:
    frames: uint8 [T, H, W, 3] of one camera of one episode.
    what: name of the episode and the camera, for the message.

  Raises:
    UserError: a frame is (nearly) of one color, or all frames are identical.
  """
  advice = "the OpenGL context is broken; set MUJOCO_GL to egl or osmesa and try again"
  spread = frames.std(axis=(1, 2, 3))
  if spread.min() < 2.0:
    raise errors.UserError(
      f"{what}: frame {int(spread.argmin())} of {len(frames)} is of a single color; {advice}"
    )
  if len(frames) > 1 and not np.ptp(frames, axis=0).any():
    raise errors.UserError(f"{what}: all {len(frames)} frames are identical; {advice}")
