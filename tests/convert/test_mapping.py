"""como_jax/convert/mapping.py: both directions, every leaf once, errors that name names."""

import numpy as np
import pytest

from como_jax import errors, trees
from como_jax.convert import mae_layouts, mapping
from tests.convert import layouts

Rule = mapping.Rule
LAYOUTS = {
  "huggingface": layouts.huggingface(decoder=True),
  "original": layouts.original(),
  "timm": layouts.timm(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip_is_identity_and_uses_every_leaf_once(layout):
  source, rules = LAYOUTS[layout], mae_layouts.rules(layout, decoder=layout != "timm")
  params = mapping.apply(rules, source)
  back = mapping.invert(rules, params)
  assert set(back) == set(source)
  for name in source:
    np.testing.assert_array_equal(back[name], source[name], err_msg=name)
  leaves = trees.flatten(params)
  assert sorted(leaves) == sorted({target for rule in rules for target in rule.targets})
  assert sum(leaf.size for leaf in leaves.values()) == sum(leaf.size for leaf in source.values())


def test_split_stack_and_permutation_by_value():
  rules = [
    Rule("b.{layer}.qkv", ("q", "k"), "(part o) i -> part i o"),
    Rule("b.{layer}.v", "v", stack=1),
    Rule("conv", "w", "o i 1 1 -> i o"),
  ]
  qkv = np.arange(2 * 4 * 3).reshape(2, 4, 3)
  conv = np.arange(6).reshape(3, 2, 1, 1)
  source = {
    "b.0.qkv": qkv[0],
    "b.1.qkv": qkv[1],
    "b.0.v": np.array([1, 2, 3]),
    "b.1.v": np.array([4, 5, 6]),
    "conv": conv,
  }
  params = mapping.apply(rules, source)
  np.testing.assert_array_equal(params["q"], [qkv[0, :2].T, qkv[1, :2].T])
  np.testing.assert_array_equal(params["k"], [qkv[0, 2:].T, qkv[1, 2:].T])
  np.testing.assert_array_equal(params["v"], [[1, 4], [2, 5], [3, 6]])
  np.testing.assert_array_equal(params["w"], conv[:, :, 0, 0].T)
  back = mapping.invert(rules, params)
  assert all(np.array_equal(back[name], source[name]) for name in source) and set(back) == set(
    source
  )


def test_layers_are_stacked_in_the_order_of_their_numbers():
  source = {f"b.{layer}.w": np.array([layer]) for layer in (10, 2, 0, 1, 3, 4, 9, 8, 7, 6, 5)}
  assert mapping.apply([Rule("b.{layer}.w", "w")], source)["w"].ravel().tolist() == list(range(11))


@pytest.mark.parametrize(
  "change, message",
  [
    (lambda s: s.pop("b.1.w"), r"file does not fit: 1 missing: b\.1\.w"),
    (lambda s: s.update(extra=np.zeros(1)), r"1 left over: extra"),
    (
      lambda s: s.update({"b.0.w": np.zeros((2, 3))}),
      r"layers of b\.\{layer\}\.w differ: \(2, 2\) and \(3, 2\)",
    ),
    (lambda s: s.update({"b.0.w": np.zeros(2)}), r"b\.0\.w is \(2,\), expected axes 'o i'"),
    (lambda s: s.update(c=np.zeros(5)), r"c gives c the shape \(5,\), expected \(4,\)"),
  ],
)
def test_apply_names_what_is_wrong(change, message):
  rules = [Rule("b.{layer}.w", "w", "o i -> i o"), Rule("c", "c")]
  source = {
    "b.0.w": np.zeros((2, 2)),
    "b.1.w": np.zeros((2, 2)),
    "b.2.w": np.zeros((2, 2)),
    "c": np.zeros(4),
    "old": np.zeros(1),
  }
  shapes = {"w": (3, 2, 2), "c": (4,)}
  mapping.apply(rules, source, ignore=("old",), shapes=shapes, what="file")
  change(source)
  with pytest.raises(errors.UserError, match=message):
    mapping.apply(rules, source, ignore=("old",), shapes=shapes, what="file")


def test_targets_of_the_model_without_a_rule_are_named():
  with pytest.raises(errors.UserError, match="not made by any rule: b"):
    mapping.apply([Rule("a", "a")], {"a": np.zeros(1)}, shapes={"a": (1,), "b": (1,)})


def test_invert_names_what_is_wrong():
  rules = [Rule("b.{layer}.w", "w"), Rule("b.{layer}.v", "v")]
  with pytest.raises(errors.UserError, match="1 missing: v | 1 left over: x"):
    mapping.invert(rules, {"w": np.zeros((2, 1)), "x": np.zeros(1)})
  with pytest.raises(errors.UserError, match=r"several depths: b\.: \[2, 3\]"):
    mapping.invert(rules, {"w": np.zeros((2, 1)), "v": np.zeros((3, 1))})


def test_two_rules_for_one_target_and_two_spellings_are_refused():
  with pytest.raises(ValueError, match="two rules make"):
    mapping.apply([Rule("a", "x"), Rule("b", "x")], {})
  with pytest.raises(errors.UserError, match="'a' twice"):
    mapping.rename({"a": 1, "p.a": 2}, [("^p[.]", "")], what="file")
