"""Checksums of weights: those of a file, and those of a training that goes on."""

import types

import numpy as np

from como_jax import weights
from como_jax.data import shards
from como_jax.inference import fingerprints
from como_jax.train import checkpoint
from tests.tasks.small_labels import model_folder


def of_parameters(path, params):
  return fingerprints.of_parameters(checkpoint.find(path), params)


def test_the_fingerprint_is_that_of_the_file(tmp_path):
  model_folder(tmp_path / "m")
  folder = tmp_path / "run" / "weights"
  params = weights.load(tmp_path / "m")[0]
  expected = shards.file_hash(str(tmp_path / "m" / weights.PARAMS))
  assert of_parameters(tmp_path / "m", params) == expected
  folder.parent.mkdir()
  (tmp_path / "m").rename(folder)
  assert of_parameters(tmp_path / "run", params) == expected
  # of a training that goes on, also beside older weights
  newer = checkpoint.WeightsLocation(weights=None, state=tmp_path, config=tmp_path, step=9)
  other = {**params, "idm": {**params["idm"], "more": np.zeros(1, np.float32)}}
  assert (
    fingerprints.of_parameters(newer, params)
    == expected
    != fingerprints.of_parameters(newer, other)
  )


def test_the_fingerprint_of_a_checkpoint_is_that_of_the_weights_it_would_make(tmp_path):
  params = {"b": {"c": np.ones(2, np.float32)}, "a": np.zeros(3, np.float32)}
  weights.save(tmp_path / "w", params, {})
  found = [types.SimpleNamespace(weights=folder) for folder in (tmp_path / "w", None)]
  assert fingerprints.of_parameters(found[0], {}) == fingerprints.of_parameters(found[1], params)


def test_the_identity_of_a_checkpoint(tmp_path):
  weights = tmp_path / "run" / "weights"
  weights.mkdir(parents=True)
  (weights / "params.safetensors").write_bytes(b"some numbers")
  (weights / "config.json").write_text('{"normalization": {"mode": "standard"}}')
  found = fingerprints.of_policy(str(tmp_path / "run"))
  assert (
    found | {"path": ""} == fingerprints.of_policy(str(weights)) | {"path": ""}
    and len(found["xxh64"]) == 16
  )
  written = []
  for text in (
    '{"normalization": {"mode": "standard", "a": 1}}',
    '{"normalization": {"a": 1, "mode": "standard"}}',
  ):
    (weights / "config.json").write_text(text)
    written.append(fingerprints.of_policy(str(weights)))
  assert written[0] == written[1], "in whatever order it is written"
  (weights / "config.json").write_text('{"normalization": {"mode": "quantile"}}')
  assert fingerprints.of_policy(str(weights))["normalization_xxh64"] != found["normalization_xxh64"]
  (weights / "policy.json").write_text("{}")
  first = fingerprints.of_policy(str(weights))["normalization_xxh64"]
  (weights / "config.json").write_text('{"normalization": {"mode": "standard"}}')
  assert fingerprints.of_policy(str(weights))["normalization_xxh64"] == first, (
    "policy.json decides alone"
  )
  (weights / "policy.json").write_text('{"version": 1}')
  assert fingerprints.of_policy(str(weights))["normalization_xxh64"] != first
  unfinished = tmp_path / "other"
  for step in (9, 10):
    saved = unfinished / "checkpoints" / str(step)
    (saved / "state").mkdir(parents=True)
    (saved / "data").mkdir()
    for name, text in {
      "state/part": str(step),
      "state/_METADATA": "{}",
      "state/manifest.ocdbt": "x",
      "data/metadata": f'{{"position": {step}}}',
    }.items():
      (saved / name).write_text(text)
  (unfinished / "config.json").write_text("{}")
  before = fingerprints.of_policy(str(unfinished))["xxh64"]
  (unfinished / "checkpoints/9/state/part").write_text("changed")
  assert fingerprints.of_policy(str(unfinished))["xxh64"] == before, "the newest step counts"
