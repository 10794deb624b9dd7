"""An exam set of numbers alone: pictures are features of the made world, with the contract of
exam.npz.
"""

import json

import numpy as np

from como_jax.data import video
from como_jax.exam import exam_set, kernel_ridge
from como_jax.exam.pictures import Pictures
from tests.exam import worlds

NAMES = ("right", "down", "depth", "gripper")


def views(random, *, fit_chains, test_chains, fit_scenes, fit_cameras):
  """View columns: every fit chain once; every test chain in 2 fixed cameras x 3 scenes, a moving
  one, a known one.
  """
  rows = [
    (
      c,
      random.integers(fit_cameras),
      random.integers(fit_scenes),
      random.integers(5),
      random.integers(6),
      0,
    )
    for c in range(fit_chains)
  ]
  for chain in range(fit_chains, fit_chains + test_chains):
    for camera in (10, 11, 12):
      for scene in (100, 101, 102) if camera < 12 else (random.integers(100, 103),):
        rows.append((chain, camera, scene, scene, scene, 1))
    rows.append((chain, random.integers(fit_cameras), 100, 100, 100, 2))
  columns = np.array(rows).T
  return dict(
    zip(("chain", "camera", "scene", "objects", "palette", "part"), columns, strict=False)
  )


def build(*, fit_chains=260, test_chains=40, fit_scenes=6, fit_cameras=3, features=96, seed=0):
  """(arrays of exam.npz, features of the three pictures of each view [V, 3, features])."""
  random = np.random.default_rng(seed)
  table = views(
    random,
    fit_chains=fit_chains,
    test_chains=test_chains,
    fit_scenes=fit_scenes,
    fit_cameras=fit_cameras,
  )
  world, chains, count = worlds.World(seed, features), fit_chains + test_chains, len(table["part"])
  poses = random.normal(size=(chains, 1, 4)) + np.concatenate(
    [np.zeros((chains, 1, 4)), np.cumsum(random.normal(size=(chains, 2, 4)), axis=1)], axis=1
  )
  keys, look = np.unique(
    np.stack([table["camera"], table["scene"], table["objects"], table["palette"]]),
    axis=1,
    return_inverse=True,
  )
  looks = [random.normal(size=(200, 16)) / 2 for _ in range(4)]
  appearance = sum(part[keys[k]] for k, part in enumerate(looks))[look]
  speed = np.where(table["camera"] == 12, random.choice([0.0, 0.5, 1.0], size=count), 0.0)
  pictures = np.stack([world.look(poses[table["chain"], k], appearance) for k in range(3)], axis=1)
  shake = 0.2 * speed[:, None, None] * random.normal(size=(count, 3, 4)) @ world.pose
  pictures = pictures + shake
  moved = np.diff(poses, axis=1)[table["chain"]].reshape(-1, 4) * [0.1, 1.0, 5.0, 2.0]
  table |= {
    "camera_speed": np.stack([speed, speed], axis=1).astype(np.float32),
    "target": moved,
    "target_robot": moved[:, ::-1].copy(),
    "names": np.array(NAMES),
    "names_robot": np.array(NAMES[::-1]),
    "numbers/color": looks[1][table["scene"]][:, :3] + 3,
  }
  return table | controls(table, pictures) | {"pictures": moving(table, pictures)}, pictures


def moving(table, pictures, count=8):
  """As evaluate/exam_components.py: components of how a view's pictures differ, about each
  camera's and scene's mean.
  """
  fit, test = (pictures[table["part"] == part] for part in (0, 1))
  rise = (fit - fit.mean(axis=1, keepdims=True)).reshape(-1, pictures.shape[2])
  found = worlds.components(test, rise, count)
  key = (1000 * table["camera"] + table["scene"])[table["part"] == 1]
  for one in np.unique(key):
    found[key == one] -= found[key == one].mean(axis=(0, 1))
  return found.astype(np.float16)


def controls(table, pictures):
  """Squared errors of linear probes of one picture and of both."""
  first, second = (
    pictures[:, :2].reshape(-1, pictures.shape[2]),
    pictures[:, 1:].reshape(-1, pictures.shape[2]),
  )
  part, chain = np.repeat(table["part"], 2), np.repeat(table["chain"], 2)
  inputs = {
    "first_linear": first,
    "second_linear": second,
    "both": np.concatenate([first, second - first], axis=1),
  }
  found = {}
  for prefix, target, kind in (("errors", "target", 1), ("errors_robot", "target_robot", 2)):
    for name, values in inputs.items():
      probe = kernel_ridge.fit(
        values[part == 0],
        table[target][part == 0],
        groups=chain[part == 0],
        whiten=False,
        kernels=("linear",),
      )
      found[f"{prefix}/{name}"] = (
        probe.predict(values[part == kind]) - table[target][part == kind]
      ) ** 2
  return found


def latents(pictures, kind, count=24):
  """Arrays of a file of latents: components of the "first" picture, of "both", or the "motion"
  between.
  """
  flat = pictures.reshape(-1, pictures.shape[2])

  def one(x):
    return worlds.components(x, flat, count)

  rise = (pictures[:, 1:] - pictures[:, :2]).reshape(-1, pictures.shape[2])

  def along(x):
    return worlds.components(x, rise, 4)

  between = {
    "first": lambda a, b: one(a),
    "both": lambda a, b: np.concatenate([one(a), one(b)], axis=1),
    "motion": lambda a, b: along(b - a),
  }[kind]
  first, second = (
    pictures[:, s].reshape(-1, pictures.shape[2]) for s in (slice(0, 2), slice(1, 3))
  )
  return {
    "z": between(first, second),
    "z_ba": between(second, first),
    "z_ac": between(pictures[:, 0], pictures[:, 2]),
    "z_aa": between(pictures[:, 0], pictures[:, 0]),
    "z_shifted": between(*(pictures[:, k] + np.linspace(-1, 1, pictures.shape[2]) for k in (0, 1))),
  }


def write(folder, table):
  """Writes exam.npz and reads it again."""
  np.savez(folder / exam_set.TABLE, **table)
  return exam_set.load(folder)


def write_pictures(root):
  """Writes a set as the folder root/hand: its pictures have one gray level each, 20 + 4 (3 v + k),
  modulo 200; one cheat is stored.
  """
  arrays, _ = build(fit_chains=60, test_chains=10)
  (root / "hand").mkdir()
  arrays["rows/components of the difference"] = arrays["errors/both"]
  np.savez(root / "hand" / "exam.npz", **arrays)
  encoder = video.H264Encoder(10, group=250)
  for picture in range(3 * len(arrays["chain"])):
    encoder.add(np.full((64, 64, 3), 20 + 4 * picture % 200, np.uint8))
  (root / "hand" / "pictures.mp4").write_bytes(encoder.finish())
  (root / "hand" / "rows.json").write_text(
    json.dumps(
      {
        "first picture": {
          "kind": "cheat",
          "verdict": "no motion beyond one picture",
          "flags": ["scene"],
          "s": -0.2,
          "s_low": -0.3,
          "s_high": -0.1,
          "e_z": 0.9,
          "e_z_low": 0.85,
          "e_z_high": 0.95,
          "excess/scene": 0.9,
          "excess/scene_low": 0.8,
          "excess/scene_high": 1.0,
        }
      }
    )
  )
  return root


def pictures():
  """The record of a set whose pictures are noise and whose tokens are the features."""
  arrays, features = build(fit_chains=60, test_chains=10)
  views = len(features)
  frames = np.random.default_rng(0).integers(0, 255, size=(views, 3, 16, 16, 3)).astype(np.uint8)
  arrays |= {
    "inverse_model": arrays["target"],
    "state/first": arrays["target"],
    "state/second": arrays["target"],
    "state_robot/first": arrays["target_robot"],
    "state_robot/second": arrays["target_robot"],
    "place": np.zeros((views, 3, 2), np.float16),
  }
  tokens = features.reshape(views, 3, 8, 12).astype(np.float16)
  # as if shifted were later by one
  return Pictures(frames, frames, tokens, arrays, tokens[:, 1:])
