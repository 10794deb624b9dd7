"""Controls of the exam: how well moves can be predicted with labels.

They predict moves from either picture, from both, or from the true pose. Their squared errors are
stored with the set. They are fitted on the fit part of the set, with its labels.

Controls see tokens of the bundled frozen encoder, or (a small convolutional network) pictures at
the size of this encoder, or a window of the stored picture around the hand or the object, where
another network finds it.

Legend: V views, P = 2V pairs, A target dimensions.
"""

from collections.abc import Iterator

import numpy as np

from como_jax.evaluate import exam_components, picture_probe, place_probe, window_probe
from como_jax.exam import exam_set, kernel_ridge
from como_jax.exam.pictures import Pictures

# Shares of the training steps for networks of each kind: one picture holds little information.
STEPS = {"first": 0.25, "second": 0.5, "both": 1.0}
# Factors of the steps for networks on windows, and for the network that finds the place.
WINDOW_STEPS, PLACE_STEPS = 2.0, 0.8
KERNELS = {"linear": "linear", "kernel": "rbf"}  # end of a control's name -> kernel
COMPONENTS = 256  # components of a picture's tokens, for the linear probe and the kernel
WINDOW = 48  # pixels of the window around the hand or the object, in stored pictures
# Target dimensions that change their sign if a picture is mirrored left to right.
MIRRORED = {"right": -1.0, "wrist": -1.0}


def errors(pictures: Pictures, *, steps: int, seed: int = 0) -> dict[str, np.ndarray]:
  """Fits all controls and returns their squared errors, in the units of the target.

  Args:
    pictures: the set.
    steps: training steps of a network on both pictures.
    seed: seed of the fits.

  Returns:
    "errors/NAME": [pairs of part 1, A].
    "errors_robot/NAME": [pairs of part 2, A].
    "inverse_model": predictions for all pairs [P, A] of the network on both pictures that is the
      better one on held-out chains of the fit part.
  """
  table, part = pictures.table, pictures.of_pairs("part")
  result, lowest_error = {}, np.inf
  windows = _windows(pictures, steps=steps, seed=seed)
  for prefix, target, kind, share in (
    ("errors", "target", exam_set.TEST, 1.0),
    ("errors_robot", "target_robot", exam_set.SAME_CAMERA, 0.5),
  ):
    targets, test = table[target].astype(np.float64), part == kind
    for name, predicted, held_out in _predictions(
      pictures, windows, target, steps=share * steps, seed=seed
    ):
      if prefix == "errors" and name.startswith("both_") and held_out < lowest_error:
        result["inverse_model"], lowest_error = predicted.astype(np.float32), held_out
      result[f"{prefix}/{name}"] = np.square(predicted[test] - targets[test]).astype(np.float32)
      relative = result[f"{prefix}/{name}"].mean(axis=0) / np.square(targets[test]).mean(axis=0)
      print(f"{prefix}/{name}: {np.round(relative, 3)}", flush=True)
  return result


def _windows(pictures: Pictures, *, steps: int, seed: int) -> window_probe.Windows:
  """Windows of all pictures, in the order [V, 3], around the place that a network finds."""
  frames, fit = pictures.frames, pictures.table["part"] == exam_set.FIT
  flat = frames.reshape(-1, *frames.shape[2:])
  places = pictures.table["place"].astype(np.float64)
  find = place_probe.fit(
    frames[fit].reshape(-1, *frames.shape[2:]),
    places[fit].reshape(-1, 2),
    steps=max(1, round(PLACE_STEPS * steps)),
    seed=seed,
  )
  predicted = find(flat).reshape(places.shape)
  for part, name in ((exam_set.FIT, "fitted"), (exam_set.TEST, "test")):
    print(
      f"place, {name}: {np.abs(predicted - places)[pictures.table['part'] == part].mean():.4f} "
      "widths of the picture off",
      flush=True,
    )
  stored = pictures.whole
  return window_probe.windows(
    stored.reshape(-1, *stored.shape[2:]), predicted.reshape(-1, 2), min(WINDOW, stored.shape[2])
  )


# (control, predictions [P, A], error on held-out chains of the fit part; infinite: not measured)
Prediction = tuple[str, np.ndarray, float]


def _predictions(
  pictures: Pictures, windows: window_probe.Windows, target: str, *, steps: float, seed: int
) -> Iterator[Prediction]:
  """Yields the predictions of all controls, with the error of those that are networks.

  Args:
    pictures: the set.
    windows: windows of all pictures.
    target: "target" or "target_robot".
    steps: training steps of a network on both pictures.
    seed: seed of the fits.
  """
  yield from _of_tokens(pictures, target, seed)
  yield from _of_networks(pictures, windows, target, steps=steps, seed=seed)
  yield from _of_true_poses(pictures, target, seed)


def _of_tokens(pictures: Pictures, target: str, seed: int) -> Iterator[Prediction]:
  """Linear and kernel probes of the tokens of either picture and of both."""
  fit, chains = pictures.fit, pictures.of_pairs("chain")
  targets = pictures.table[target].astype(np.float64)
  tokens = pictures.tokens.reshape(len(pictures.tokens), 3, -1).astype(np.float32)
  first, second, sample = pictures.first(tokens), pictures.second(tokens), pictures.fit_sample
  compress = exam_components.components(np.concatenate([first[sample], second[sample]]), COMPONENTS)
  small = {"first": compress(first), "second": compress(second)}
  small["both"] = np.concatenate([small["first"], small["second"] - small["first"]], axis=1)
  for name, values in small.items():
    for end, kernel in KERNELS.items():
      probe = kernel_ridge.fit(
        values[fit], targets[fit], groups=chains[fit], seed=seed, whiten=False, kernels=(kernel,)
      )
      yield f"{name}_{end}", probe.predict(values), np.inf


def _of_networks(
  pictures: Pictures, windows: window_probe.Windows, target: str, *, steps: float, seed: int
) -> Iterator[Prediction]:
  """Networks on the whole pictures, and on windows of them; arguments as for `_predictions`."""
  fit, chains = pictures.fit, pictures.of_pairs("chain")
  targets = pictures.table[target].astype(np.float64)
  names = pictures.table["names"] if target == "target" else ()
  signs = [MIRRORED.get(str(name), 1.0) for name in names]
  order = np.arange(len(windows.places)).reshape(-1, 3)
  networks = {
    "network": (picture_probe.fit, pictures.frames, 1.0),
    "window": (window_probe.fit, order, WINDOW_STEPS),
  }
  for network, (fit_network, inputs, share) in networks.items():
    first, second = (
      windows[rows] if network == "window" else rows
      for rows in (pictures.first(inputs), pictures.second(inputs))
    )
    for kind in picture_probe.KINDS:
      settings = {"kind": kind, "steps": max(1, round(share * steps * STEPS[kind])), "seed": seed}
      probe = fit_network(
        first[fit], second[fit], targets[fit], groups=chains[fit], mirrored=signs, settings=settings
      )
      print(probe.text, flush=True)
      yield f"{kind}_{network}", probe.predict(first, second), probe.error


def _of_true_poses(pictures: Pictures, target: str, seed: int) -> Iterator[Prediction]:
  """Oracles: linear and kernel probes of the true pose in the second picture."""
  fit, chains = pictures.fit, pictures.of_pairs("chain")
  targets = pictures.table[target].astype(np.float64)
  pose = pictures.table[f"state{target.removeprefix('target')}/second"].astype(np.float64)
  for end, kernel in KERNELS.items():
    probe = kernel_ridge.fit(
      pose[fit], targets[fit], groups=chains[fit], seed=seed, kernels=(kernel,)
    )
    yield f"oracle_second_{end}", probe.predict(pose), np.inf
