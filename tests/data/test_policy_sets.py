"""Data sets of a policy and their labels."""

import types

import pytest

from como_jax import errors
from como_jax.data import policy_index, policy_sets


def test_labels_of_one_model_and_offset():
  def opened(name, path, mark, offset):
    manifest = {"model": {"path": path, "fingerprint": mark}, "offset_seconds": offset}
    motions = types.SimpleNamespace(manifest=manifest) if path else None
    return policy_sets.OpenedSet(policy_index.PolicySet("p", labels=name), {}, None, motions)

  def check(*second):
    return policy_sets.check_one_model(
      [opened("one", "m", "x", 0.5), opened("", "", "", 0), opened("two", *second)]
    )

  check("other", "x", 0.5)
  with pytest.raises(
    errors.UserError,
    match=(
      "^labels two are of another motion model .n. than labels one .m.; extract them with one "
      "model$"
    ),
  ):
    check("n", "y", 0.5)
  with pytest.raises(
    errors.UserError,
    match="^labels two are at 0.4 s and labels one at 0.5 s: a policy has one latent motion",
  ):
    check("m", "x", 0.4)
