"""The record of the data of a run, and the words for what has changed in it."""

import json

import pytest
import xxhash

from como_jax import config as config_lib
from como_jax import errors, weights
from como_jax.train import data_identity


def shards(folder, *, source="aa"):
  folder.mkdir(exist_ok=True)
  (folder / "one").write_bytes(b"x" * 5)
  manifest = {
    "source": {"fingerprint": source},
    "counts": {"episodes": 3, "frames": 30},
    "shards": [{"file": "one"}, {"file": "gone"}],
  }
  (folder / "manifest.json").write_text(json.dumps(manifest))
  return str(folder)


def config(path="", mixture=()):
  return config_lib.ConfigDict({"data": {"path": path, "mixture": mixture}})


def test_what_is_recorded_of_data(tmp_path):
  one, two = shards(tmp_path / "a"), shards(tmp_path / "b", source="bb")
  (tmp_path / "labels").mkdir()
  (tmp_path / "labels" / "labels.json").write_text("{}")
  found = data_identity.record(
    config(mixture=({"path": "as given"}, {"path": "other"})),
    [(one, ""), (two, str(tmp_path / "labels"))],
  )
  sizes = xxhash.xxh3_64_hexdigest(b'[["one", 5], ["gone", -1]]')
  first = {
    "path": "as given",
    "source": "aa",
    "manifest": weights.digest(tmp_path / "a" / "manifest.json"),
    "shards": sizes,
    "labels": "",
    "counts": {"episodes": 3, "frames": 30},
  }
  assert found == [
    first,
    {
      **first,
      "path": "other",
      "source": "bb",
      "manifest": weights.digest(tmp_path / "b" / "manifest.json"),
      "labels": weights.digest(tmp_path / "labels" / "labels.json"),
    },
  ]
  assert data_identity.record(config("alone"), [(one, "")]) == [{**first, "path": "alone"}]
  with pytest.raises(ValueError, match="zip"):
    data_identity.record(config("alone"), [(one, ""), (two, "")])


def one(**changes):
  return {
    "path": "DATA",
    "source": "a",
    "manifest": "b",
    "shards": "c",
    "labels": "d",
    "counts": {"episodes": 3, "frames": 30},
    **changes,
  }


ALL = "the source's files, the manifest of the shards, the shard files, the labels"


@pytest.mark.parametrize(
  "was, now, line",
  [
    (one(), one(), ""),
    (one(), one(path="elsewhere", counts={}), ""),
    (
      one(),
      one(labels="x"),
      "DATA: the labels changed (3 episodes, 30 frames before and 3 episodes, 30 frames now)",
    ),
    (
      one(counts={"episodes": 2}),
      one(shards="x"),
      "DATA: the shard files changed (2 episodes, ? frames before and 3 episodes, 30 frames now)",
    ),
    (
      {"counts": {}},
      one(),
      f"DATA: {ALL} changed (? episodes, ? frames before and 3 episodes, 30 frames now)",
    ),
  ],
)
def test_changed_data_are_named_and_accepted_only_when_asked(tmp_path, was, now, line):
  assert data_identity.check(tmp_path, [now], accept=False) == []
  text = data_identity.text([was])
  assert text == json.dumps({"version": 1, "sets": [was]}, indent=2)
  (tmp_path / data_identity.FILE).write_text(text)
  assert data_identity.check(tmp_path, [now], accept=True) == (
    [f"resume: {line}: accepted"] if line else []
  )
  if line:
    with pytest.raises(errors.UserError) as caught:
      data_identity.check(tmp_path, [now], accept=False)
    assert str(caught.value) == (
      f"--resume: the data are not those {tmp_path} was started with: {line}; put them back, or "
      "give --config.train.accept_changed_data=True"
    )
  else:
    assert data_identity.check(tmp_path, [now], accept=False) == []


def test_a_record_of_a_later_version_is_refused(tmp_path):
  file = tmp_path / data_identity.FILE
  file.write_text(json.dumps({"sets": [one()]}))
  assert data_identity.check(tmp_path, [one()], accept=False) == []
  file.write_text(json.dumps({"version": 2, "sets": []}))
  with pytest.raises(errors.UserError) as caught:
    data_identity.check(tmp_path, [one()], accept=True)
  assert str(caught.value) == f"{file} has version 2, this program reads up to 1: update como_jax"
