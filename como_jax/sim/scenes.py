"""Appearance variations of a MuJoCo model: same physics, other colors, textures and lights.

Scene 0 is the simulator's own appearance. Scene k > 0 is drawn from the number k alone, so it is
the same in every task, process and data set.
"""

import numpy as np


class Scenes:
  """Applies scenes to a compiled `mujoco.MjModel` and restores scene 0.

  Any object with the same arrays works too. Textures are stored on the graphics card, so a new
  Renderer is needed after every change.
  """

  ARRAYS = (
    "geom_rgba",
    "mat_rgba",
    "mat_specular",
    "mat_reflectance",
    "light_diffuse",
    "light_pos",
    "tex_data",
  )

  def __init__(self, model, *, surfaces: tuple[str, ...], recolored: tuple[float, float, float]):
    """Stores the original appearance.

    Args:
      model: compiled model.
      surfaces: materials whose texture and color change (table, floor, walls); missing materials
        are ignored.
      recolored: geoms of exactly this color and without a material (the robot's links) change
        together.
    """
    self._model = model
    self._original = {name: np.array(getattr(model, name)) for name in self.ARRAYS}
    self._headlight = np.array(model.vis.headlight.diffuse)
    names = [model.material(i).name for i in range(model.nmat)]
    self._materials = [names.index(name) for name in surfaces if name in names]
    same = np.isclose(model.geom_rgba[:, :3], recolored).all(axis=1)
    self._links = np.flatnonzero(same & (model.geom_matid < 0))
    self.current = 0

  def apply(self, scene: int) -> bool:
    """Changes the model to scene `scene` (>= 0); returns whether the scene changed."""
    if scene == self.current:
      return False
    self.current = scene
    for name, value in self._original.items():
      getattr(self._model, name)[:] = value
    self._model.vis.headlight.diffuse[:] = self._headlight
    if scene:
      self._vary(np.random.default_rng([7919, scene]))
    return True

  def _vary(self, rng: np.random.Generator) -> None:
    model = self._model
    for material in self._materials:
      model.mat_rgba[material, :3] = 1.0
      model.mat_specular[material] = rng.uniform(0, 0.4)
      model.mat_reflectance[material] = 0.0
      textures = [int(t) for t in model.mat_texid[material] if t >= 0]
      pattern = int(rng.integers(4))
      colors = rng.uniform(40, 235, size=(2, 3))
      for texture in textures:
        self._paint(texture, pattern, colors, rng)
      if not textures:
        model.mat_rgba[material, :3] = colors[0] / 255
    model.geom_rgba[self._links, :3] = rng.uniform(0.05, 0.9, size=3)
    model.light_diffuse[:] *= rng.uniform(0.6, 1.5)
    model.light_pos[:, :2] += rng.uniform(-0.5, 0.5, size=2)
    model.vis.headlight.diffuse[:] = self._headlight * rng.uniform(0.7, 1.3)

  def _paint(
    self, texture: int, pattern: int, colors: np.ndarray, rng: np.random.Generator
  ) -> None:
    """Paints a texture.

    Args:
      texture: index of the texture.
      pattern: 0 one color, 1 checks, 2 stripes, 3 smooth noise.
      colors: [2, 3] in 0..255.
      rng: of the pattern's details.
    """
    model = self._model
    width, channels = int(model.tex_width[texture]), int(model.tex_nchannel[texture])
    height = int(model.tex_height[texture])
    rows, columns = np.mgrid[0:height, 0:width] / width
    count = int(rng.integers(4, 10))
    if pattern == 0:
      blend = np.zeros((height, width))
    elif pattern == 1:
      blend = ((rows * count).astype(int) + (columns * count).astype(int)) % 2
    elif pattern == 2:
      blend = (columns * 2 * count).astype(int) % 2
    else:
      phase = rng.uniform(0, 2 * np.pi, size=(3, 2))
      waves = 2 * np.pi * count / 2.0 ** np.arange(3)
      blend = np.zeros((height, width))
      for k in range(3):
        blend += np.sin(waves[k] * rows + phase[k, 0]) * np.sin(waves[k] * columns + phase[k, 1])
      blend = (blend + 3) / 6
    picture = (
      colors[0]
      + blend[..., None] * (colors[1] - colors[0])
      + rng.normal(0, 3, size=(height, width, 1))
    )
    picture = np.clip(picture, 0, 255).astype(np.uint8)
    if channels == 4:
      picture = np.concatenate([picture, np.full((height, width, 1), 255, np.uint8)], axis=-1)
    start = int(model.tex_adr[texture])
    model.tex_data[start : start + picture.size] = picture[..., :channels].reshape(-1)
