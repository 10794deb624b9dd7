"""Headless MuJoCo rendering: which OpenGL backend works here, and checks that frames are really pictures.

MuJoCo picks its backend from MUJOCO_GL while it is imported, so `choose_backend` must run before `import mujoco`.
"""

import os
import subprocess
import sys

import numpy as np

from como_jax import errors

PACKAGES = {"egl": "libegl1 libegl-mesa0 libgl1-mesa-dri", "osmesa": "libosmesa6"}

# Some drivers import and make a context but draw nothing, so the probe has to look at pixels. Leaving by os._exit
# avoids the harmless EGLError that PyOpenGL prints while the interpreter shuts down.
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
  """Sets MUJOCO_GL to the first backend that draws a test picture (EGL, then OSMesa); keeps a value already set.

  Returns:
    The backend's name.

  Raises:
    UserError: none works; names the Debian packages to install.
  """
  chosen = os.environ.get("MUJOCO_GL")
  if chosen or "mujoco" in sys.modules:
    return chosen or "default"  # MuJoCo has decided already (a window system); rendering will say if it fails
  reasons = []
  for backend in PACKAGES:
    environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    probe = subprocess.run([sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True)
    if probe.returncode == 0:
      os.environ["MUJOCO_GL"] = backend
      return backend
    lines = probe.stderr.strip().splitlines()
    reasons.append(f"{backend}: {lines[-1] if lines else f'exit code {probe.returncode}'}")
  raise errors.UserError(
    "no headless OpenGL works for MuJoCo (" + "; ".join(reasons) + "): run "
    f"`apt-get install -y {PACKAGES['egl']}` or `apt-get install -y {PACKAGES['osmesa']}`"
  )


def check_frames(frames: np.ndarray, what: str) -> None:
  """Stops on what broken OpenGL contexts return without an error: constant frames, or one frame again and again.

  Args:
    frames: uint8 [T, H, W, 3] of one camera of one episode.
    what: named in the error.

  Raises:
    UserError: a frame is (nearly) of one colour, or all frames are identical.
  """
  advice = "the OpenGL context is broken; set MUJOCO_GL to egl or osmesa and try again"
  spread = frames.reshape(len(frames), -1).std(axis=1)
  if spread.min() < 2.0:
    raise errors.UserError(f"{what}: frame {int(spread.argmin())} of {len(frames)} is of a single colour; {advice}")
  if len(frames) > 1 and not (frames[1:] != frames[0]).any():
    raise errors.UserError(f"{what}: all {len(frames)} frames are identical; {advice}")
