"""Appearances of a model that is nothing but arrays."""

import types
import zlib

import numpy as np
import pytest

from como_jax.sim import scenes

LINK = (0.5, 0.1, 0.1)


class Model:
  """Materials: table (texture 0), robot (texture 1), wall (textures 2 of four channels), floor
  (none). Geoms: two links, one that has a material, one of another color.
  """

  nmat = 4

  def __init__(self):
    draw = np.random.default_rng(0)
    self.geom_rgba = np.array([(*LINK, 1), (*LINK, 1), (0.2, 0.2, 0.2, 1), (*LINK, 0.5)])
    self.geom_matid = np.array([-1, 0, -1, -1])
    self.mat_rgba, self.mat_specular, self.mat_reflectance = (
      np.full((4, 4), 0.3),
      np.full(4, 0.7),
      np.full(4, 0.6),
    )
    self.mat_texid = np.full((4, 3), -1)
    self.mat_texid[0, 1], self.mat_texid[1, 0], self.mat_texid[2, 2] = 0, 1, 2
    self.tex_width, self.tex_height, self.tex_nchannel = (
      np.array([16, 2, 12]),
      np.array([8, 2, 12]),
      np.array([3, 3, 4]),
    )
    self.tex_adr = np.cumsum([5, 384, 12])
    self.tex_data = draw.integers(0, 256, 5 + 384 + 12 + 576 + 7).astype(np.uint8)
    self.light_diffuse, self.light_pos = np.full((2, 3), 0.4), np.ones((2, 3))
    self.vis = types.SimpleNamespace(headlight=types.SimpleNamespace(diffuse=np.full(3, 0.5)))

  def material(self, number):
    return types.SimpleNamespace(name=("table", "robot", "wall", "floor")[number])

  def arrays(self):
    return {name: np.array(getattr(self, name)) for name in scenes.Scenes.ARRAYS} | {
      "headlight": np.array(self.vis.headlight.diffuse)
    }

  def picture(self, number):
    shape = self.tex_height[number], self.tex_width[number], self.tex_nchannel[number]
    return self.tex_data[self.tex_adr[number] :][: np.prod(shape)].reshape(shape).astype(int)


def seen(number, model=None):
  model = model or Model()
  scenes.Scenes(model, surfaces=("table", "missing", "wall", "floor"), recolored=LINK).apply(number)
  return model


def test_scene_0_is_the_models_own_and_comes_back():
  model = Model()
  own, one = (
    model.arrays(),
    scenes.Scenes(model, surfaces=("table", "wall", "floor"), recolored=LINK),
  )
  assert one.current == 0 and one.apply(0) is False
  assert one.apply(3) is True and one.apply(3) is False and one.current == 3
  third = model.arrays()
  assert all((third[name] != own[name]).any() for name in own)
  one.apply(1), one.apply(3)
  np.testing.assert_equal(model.arrays(), third)
  one.apply(0)
  np.testing.assert_equal(model.arrays(), own)


def test_only_what_was_named_changes():
  own, model = Model().arrays(), seen(2)
  new = model.arrays()
  assert (new["mat_rgba"][[0, 2], :3] == 1).all() and (
    new["mat_rgba"][3, :3] < 235 / 255 + 1e-9
  ).all(), "white below a texture"
  assert (new["mat_rgba"][1] == own["mat_rgba"][1]).all() and (new["mat_rgba"][:, 3] == 0.3).all()
  assert (
    new["mat_reflectance"].tolist() == [0, 0.6, 0, 0]
    and new["mat_specular"][1] == 0.7
    and (new["mat_specular"][[0, 2, 3]] < 0.4).all()
  )
  np.testing.assert_array_equal(new["geom_rgba"][[1, 2]], own["geom_rgba"][[1, 2]])
  assert (new["geom_rgba"][0, :3] == new["geom_rgba"][3, :3]).all() and new["geom_rgba"][
    [0, 3], 3
  ].tolist() == [1, 0.5]
  assert (new["light_pos"][:, 2] == 1).all() and (new["light_pos"][0] == new["light_pos"][1]).all()
  texels = np.arange(len(own["tex_data"]))
  outside = (texels < 5) | ((texels >= 389) & (texels < 401)) | (texels >= 977)
  np.testing.assert_array_equal(new["tex_data"][outside], own["tex_data"][outside])
  assert (model.picture(2)[..., 3] == 255).all(), "opaque"


# What a scene looks like is part of every data set that names it: numbers, and sums of the pictures
# on the table and the wall.
LOOKS = {
  3: (
    [0.2559, 0.1517, 0.1429],
    [0.4967, 0.4576, 0.298],
    [90.0061, 85.8209, 157.0935],
    [0.4031],
    [0.8419, 1.0965],
    [0.5545],
    [3821000376, 180175711],
  ),  # clouds, checks
  6: (
    [0.1864, 0.3394, 0.2095],
    [0.8202, 0.7132, 0.6563],
    [166.1765, 233.7112, 43.6098],
    [0.5301],
    [1.2947, 0.6638],
    [0.5851],
    [2427160923, 1532031248],
  ),  # one color, stripes
  8: (
    [0.211, 0.3811, 0.0913],
    [0.7868, 0.8861, 0.497],
    [113.5372, 223.561, 52.7196],
    [0.2707],
    [0.8536, 0.5012],
    [0.4037],
    [3493152056, 1937320629],
  ),  # clouds, one color
  11: (
    [0.0752, 0.3399, 0.0181],
    [0.3305, 0.2616, 0.661],
    [117.1833, 54.796, 210.7184],
    [0.5664],
    [1.0549, 1.1661],
    [0.543],
    [1463594703, 1799350062],
  ),  # checks, clouds
}


@pytest.mark.parametrize("number", LOOKS)
def test_a_scene_is_its_number(number):
  specular, link, floor, light, place, head, textures = LOOKS[number]
  model = seen(number)
  found = (
    model.mat_specular[[0, 2, 3]],
    model.geom_rgba[0, :3],
    255 * model.mat_rgba[3, :3],
    model.light_diffuse[0, :1],
    model.light_pos[0, :2],
    model.vis.headlight.diffuse[:1],
  )
  for values, expected in zip(found, (specular, link, floor, light, place, head), strict=False):
    np.testing.assert_allclose(values, expected, atol=1e-4)
  assert [zlib.crc32(model.picture(i).astype(np.uint8).tobytes()) for i in (0, 2)] == textures
