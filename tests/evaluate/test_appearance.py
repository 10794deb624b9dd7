"""Whether z tells the camera or the task."""

import numpy as np
import pytest

from como_jax import errors
from como_jax.evaluate import appearance, linear_probe, splits


def test_identity_by_hand():
  z = np.array([[0.0], [0], [1], [1], [2], [2], [0], [0], [1], [1], [0], [1]])
  labels = np.array(["a", "a", "b", "b", "c", "c", "a", "a", "b", "b", "b", "b"])
  episodes = np.array([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
  one_hot = np.concatenate([z == 0, z == 1, z == 2], 1).astype(float)
  split = splits.split_by_episode(episodes, 0.5, seed=1)
  found = appearance.identity(one_hot, labels, episodes=episodes, fraction=0.5, seed=1)
  right = {"a": [], "b": [], "c": []}
  fitted = linear_probe.fit(
    one_hot[split.train],
    np.stack([labels[split.train] == c for c in "abc"], 1).astype(float),
    episodes[split.train],
    shared=True,
    seed=1,
  )
  for guess, label in zip(
    fitted(one_hot[split.held_out]).argmax(1), labels[split.held_out], strict=False
  ):
    right[label].append("abc"[guess] == label)
  by_class = [np.mean(right[c]) if right[c] else np.nan for c in "abc"]
  np.testing.assert_array_equal(found.by_class, by_class)
  assert (
    found.accuracy == pytest.approx(np.nanmean(by_class))
    and found.chance == pytest.approx(1 / 3)
    and found.classes == ("a", "b", "c")
  )
  assert found.excess == pytest.approx((found.accuracy - 1 / 3) / (2 / 3))
  assert found.text == (
    f"linear classifier, 3 classes, {split}; mean of the classes' accuracies; ridge "
    f"{fitted.ridges[0]:.3g} times the samples"
  )
  for given, message in (
    ((z, labels[:5], episodes), "hold 12, 5 and 12 samples"),
    ((z, labels, episodes[:3]), "hold 12, 12 and 3 samples"),
    ((z[:0], labels[:0], episodes[:0]), "found only none$"),
    ((z, np.zeros(12), episodes), "found only 0.0$"),
  ):
    with pytest.raises(errors.UserError, match=message):
      appearance.identity(given[0], given[1], episodes=given[2])
