"""The part of MuJoCo 3.3 that `como_jax/sim` uses."""

import enum
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__version__: str

class _Named:
  """A named element of a model or of its data: a view into their arrays."""

  id: int
  name: str
  qposadr: np.ndarray
  dofadr: np.ndarray
  mocapid: np.ndarray
  qpos: np.ndarray
  xpos: np.ndarray

class _Quality:
  shadowsize: int
  offsamples: int

class _Global:
  offwidth: int
  offheight: int

class _Headlight:
  diffuse: np.ndarray

class _Visual:
  quality: _Quality
  global_: _Global
  headlight: _Headlight

class _Contacts:
  geom: np.ndarray
  efc_address: np.ndarray

class MjModel:
  vis: _Visual
  nv: int
  nmat: int
  body_mocapid: np.ndarray
  cam_fovy: np.ndarray
  cam_pos: np.ndarray
  cam_quat: np.ndarray
  geom_matid: np.ndarray
  geom_pos: np.ndarray
  geom_rbound: np.ndarray
  geom_rgba: np.ndarray
  geom_size: np.ndarray
  geom_type: np.ndarray
  light_diffuse: np.ndarray
  light_pos: np.ndarray
  mat_reflectance: np.ndarray
  mat_rgba: np.ndarray
  mat_specular: np.ndarray
  mat_texid: np.ndarray
  tex_adr: np.ndarray
  tex_data: np.ndarray
  tex_height: np.ndarray
  tex_nchannel: np.ndarray
  tex_width: np.ndarray
  def body(self, name: str | int) -> _Named: ...
  def camera(self, name: str | int) -> _Named: ...
  def geom(self, name: str | int) -> _Named: ...
  def joint(self, name: str | int) -> _Named: ...
  def material(self, name: str | int) -> _Named: ...
  def site(self, name: str | int) -> _Named: ...

class MjData:
  contact: _Contacts
  efc_force: np.ndarray
  mocap_pos: np.ndarray
  qpos: np.ndarray
  site_xpos: np.ndarray
  xmat: np.ndarray
  xpos: np.ndarray
  def __init__(self, model: MjModel) -> None: ...
  def body(self, name: str | int) -> _Named: ...
  def joint(self, name: str | int) -> _Named: ...
  def site(self, name: str | int) -> _Named: ...

class MjvCamera:
  lookat: np.ndarray
  distance: float
  azimuth: float
  elevation: float

class MjvOption:
  geomgroup: np.ndarray

class MjvScene:
  flags: np.ndarray

class mjtGeom(enum.IntEnum):
  mjGEOM_SPHERE = ...
  mjGEOM_CYLINDER = ...
  mjGEOM_BOX = ...

class mjtRndFlag(enum.IntEnum):
  mjRND_SHADOW = ...
  mjRND_REFLECTION = ...

class Renderer:
  def __init__(self, model: MjModel, height: int = ..., width: int = ...) -> None: ...
  @property
  def scene(self) -> MjvScene: ...
  def update_scene(
    self, data: MjData, camera: int | str | MjvCamera = ..., scene_option: MjvOption | None = ...
  ) -> None: ...
  def render(self) -> np.ndarray: ...
  def close(self) -> None: ...

class _Element:
  """An element of a model before it is compiled."""

  name: str
  size: npt.ArrayLike
  def delete(self) -> None: ...

class _Body(_Element):
  def add_body(self, *, name: str, mocap: bool, pos: Sequence[float]) -> _Body: ...
  def add_camera(self, *, name: str) -> _Element: ...
  def add_geom(
    self,
    *,
    name: str = ...,
    type: mjtGeom,
    size: Sequence[float],
    pos: Sequence[float] = ...,
    quat: Sequence[float] = ...,
    rgba: Sequence[float],
    contype: int,
    conaffinity: int,
  ) -> _Element: ...

class MjSpec:
  worldbody: _Body
  geoms: Sequence[_Element]
  equalities: Sequence[_Element]
  @staticmethod
  def from_file(path: str) -> MjSpec: ...
  def body(self, name: str) -> _Body: ...
  def site(self, name: str) -> _Element: ...
  def detach_body(self, body: _Body) -> None: ...
  def compile(self) -> MjModel: ...

def mj_camlight(model: MjModel, data: MjData) -> None: ...
def mj_comPos(model: MjModel, data: MjData) -> None: ...
def mj_jacBody(
  model: MjModel, data: MjData, jacp: np.ndarray, jacr: np.ndarray, body: int
) -> None: ...
def mj_kinematics(model: MjModel, data: MjData) -> None: ...
def mju_mat2Quat(quat: np.ndarray, mat: np.ndarray) -> None: ...
def mju_quat2Vel(vel: np.ndarray, quat: np.ndarray, dt: float) -> None: ...
