"""What can be known of the exam's moves: from either picture, from both, from the true pose;
squared errors of each, stored with the set.

Controls see the pictures through one frozen encoder, the one that ships; as they are, at its size
(a small convolutional network); or a window about the hand or the object, as it is stored, where a
network finds it. They are fitted on the set's fit part, with its labels. Legend: V views, P = 2V
pairs, A numbers asked for.
"""

from collections.abc import Iterator

import numpy as np

from como_jax.evaluate import picture_probe, place_probe, window_probe
from como_jax.exam import exam_set, kernel_ridge
from como_jax.tasks import exam_rows
from como_jax.tasks.exam_pictures import Pictures

# shares of the steps that a network of each kind gets: one picture tells little
STEPS = {"first": 0.25, "second": 0.5, "both": 1.0}
# shares that networks on windows get of them, and the one that finds the place
LOOK, FIND = 2.0, 0.8
COMPONENTS = 256  # of a picture's tokens, for the linear probe and the kernel
WINDOW = 48  # pixels about the hand or the object, of the pictures as they are stored
# numbers that turn around where a picture is mirrored left to right
MIRRORED = {"right": -1.0, "wrist": -1.0}


def errors(pictures: Pictures, *, steps: int, seed: int = 0) -> dict[str, np.ndarray]:
  """{"errors/NAME": [pairs of part 1, A], "errors_robot/NAME": [pairs of part 2, A]}, squared, in
  the target's own units; and what the network on both pictures that is better on held-out chains of
  the fit part says of all pairs, "inverse_model" [P, A].
  """
  table, part = pictures.table, pictures.of_pairs("part")
  found, least = {}, np.inf
  windows = _windows(pictures, steps=steps, seed=seed)
  for prefix, target, kind, share in (
    ("errors", "target", exam_set.TEST, 1.0),
    ("errors_robot", "target_robot", exam_set.SAME_CAMERA, 0.5),
  ):
    wanted, test = table[target].astype(np.float64), part == kind
    for name, predicted, held_out in _predictions(
      pictures, windows, target, steps=share * steps, seed=seed
    ):
      if prefix == "errors" and name.startswith("both_") and held_out < least:
        found["inverse_model"], least = predicted.astype(np.float32), held_out
      found[f"{prefix}/{name}"] = np.square(predicted[test] - wanted[test]).astype(np.float32)
      relative = found[f"{prefix}/{name}"].mean(axis=0) / np.square(wanted[test]).mean(axis=0)
      print(f"{prefix}/{name}: {np.round(relative, 3)}", flush=True)
  return found


def _windows(pictures: Pictures, *, steps: int, seed: int) -> window_probe.Windows:
  """Of all pictures, in the order [V, 3], about the place that a network finds."""
  shown, fit = pictures.frames, pictures.table["part"] == exam_set.FIT
  flat = shown.reshape(-1, *shown.shape[2:])
  wanted = pictures.table["place"].astype(np.float64)
  find = place_probe.fit(
    shown[fit].reshape(-1, *shown.shape[2:]),
    wanted[fit].reshape(-1, 2),
    steps=max(1, round(FIND * steps)),
    seed=seed,
  )
  found = find(flat).reshape(wanted.shape)
  for part, name in ((exam_set.FIT, "fitted"), (exam_set.TEST, "test")):
    print(
      f"place, {name}: {np.abs(found - wanted)[pictures.table['part'] == part].mean():.4f} "
      "widths of the picture off",
      flush=True,
    )
  whole = pictures.whole
  return window_probe.windows(
    whole.reshape(-1, *whole.shape[2:]), found.reshape(-1, 2), min(WINDOW, whole.shape[2])
  )


def _predictions(
  pictures: Pictures, windows: window_probe.Windows, target: str, *, steps: float, seed: int
) -> Iterator[tuple[str, np.ndarray, float]]:
  """(control, predictions [P, A], error of a network on held-out chains of the fit part, else
  infinite).
  """
  fit, chains, wanted = (
    pictures.fit,
    pictures.of_pairs("chain"),
    pictures.table[target].astype(np.float64),
  )
  tokens = pictures.tokens.reshape(len(pictures.tokens), 3, -1).astype(np.float32)
  rows = {"first": pictures.first(tokens), "second": pictures.second(tokens)}
  chosen = np.flatnonzero(fit)[:: max(1, int(fit.sum()) // 4_000)]
  compress = exam_rows.components(
    np.concatenate([rows["first"][chosen], rows["second"][chosen]]), COMPONENTS
  )
  small = {name: compress(values) for name, values in rows.items()}
  small["both"] = np.concatenate([small["first"], small["second"] - small["first"]], axis=1)
  for name, values in small.items():
    for kernel in ("linear", "rbf"):
      probe = kernel_ridge.fit(
        values[fit], wanted[fit], groups=chains[fit], seed=seed, whiten=False, kernels=(kernel,)
      )
      yield f"{name}_{'linear' if kernel == 'linear' else 'kernel'}", probe.predict(values), np.inf
  signs = (
    [MIRRORED.get(str(name), 1.0) for name in pictures.table["names"]] if target == "target" else []
  )
  order = np.arange(len(windows.places)).reshape(-1, 3)
  looks = {
    "network": (picture_probe.fit, pictures.frames, 1.0),
    "window": (window_probe.fit, order, LOOK),
  }
  for look, (fitted, seen, share) in looks.items():
    first, second = (
      windows[rows] if look == "window" else rows
      for rows in (pictures.first(seen), pictures.second(seen))
    )
    for kind in picture_probe.KINDS:
      settings = {"kind": kind, "steps": max(1, round(share * steps * STEPS[kind])), "seed": seed}
      probe = fitted(
        first[fit], second[fit], wanted[fit], groups=chains[fit], mirrored=signs, settings=settings
      )
      print(probe.text, flush=True)
      yield f"{kind}_{look}", probe.predict(first, second), probe.error
  for kernel in ("linear", "rbf"):
    pose = pictures.table[f"state{target.removeprefix('target')}/second"].astype(np.float64)
    probe = kernel_ridge.fit(
      pose[fit], wanted[fit], groups=chains[fit], seed=seed, kernels=(kernel,)
    )
    yield (
      f"oracle_second_{'linear' if kernel == 'linear' else 'kernel'}",
      probe.predict(pose),
      np.inf,
    )
