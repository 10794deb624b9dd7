"""Path-named trees."""

import numpy as np
import pytest

from como_jax import errors, trees

TREE = {"encoder": {"kernel": np.zeros((2, 3)), "norm": {"scale": np.ones(3)}}, "head": np.zeros(1)}


def test_flatten_and_back():
  flat = trees.flatten(TREE)
  assert list(flat) == ["encoder/kernel", "encoder/norm/scale", "head"]
  assert trees.flatten(trees.unflatten(flat)).keys() == flat.keys()


def test_patterns_match_whole_names():
  assert trees.mask(TREE, ("encoder/.*",)) == {
    "encoder": {"kernel": True, "norm": {"scale": True}},
    "head": False,
  }
  assert not trees.matches("encoder/kernel", ("encoder",))


def test_split_and_join():
  rest, chosen = trees.split(TREE, (r".*/scale",))
  assert list(trees.flatten(chosen)) == ["encoder/norm/scale"]
  assert trees.flatten(trees.join(rest, chosen)).keys() == trees.flatten(TREE).keys()


@pytest.mark.parametrize(
  "change, words",
  [
    (lambda flat: flat.pop("head"), ["1 missing: head"]),
    (lambda flat: flat.update(tail=np.zeros(1)), ["1 surplus: tail"]),
    (
      lambda flat: flat.update({"encoder/kernel": np.zeros((3, 2))}),
      ["1 of another shape: encoder/kernel is (3, 2), expected (2, 3)"],
    ),
  ],
)
def test_merge_names_what_does_not_fit(change, words):
  flat = trees.flatten(TREE)
  change(flat)
  with pytest.raises(errors.UserError) as caught:
    trees.merge(TREE, trees.unflatten(flat), what="weights.bin")
  assert all(word in str(caught.value) for word in ["weights.bin", *words])


def test_merge_takes_the_targets_type():
  merged = trees.merge(
    TREE,
    {
      "encoder": {"kernel": np.ones((2, 3), np.float16), "norm": {"scale": np.ones(3)}},
      "head": np.zeros(1),
    },
    what="x",
  )
  assert merged["encoder"]["kernel"].dtype == np.float64 and merged["encoder"]["kernel"].all()
