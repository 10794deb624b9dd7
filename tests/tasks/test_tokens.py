"""Tokens of a frozen encoder, computed once: the same numbers, fewer passes, the same training."""

import json

import numpy as np
import pytest

from como_jax import errors
from como_jax.tasks import policy, tokens
from tests.data import makers
from tests.models.policy import small
from tests.tasks.test_policy import parse


@pytest.fixture(scope="module", name="path")
def _path(tmp_path_factory):
  return makers.shards(tmp_path_factory.mktemp("data") / "s", (12,) * 8)


@pytest.fixture(scope="module", name="run")
def _run(path, tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs") / "policy"
  assert policy.run(parse(folder, f"--config.data.path={path}")) == 0
  return folder


def test_the_same_tokens_in_fewer_passes():
  model, params, _ = small.functions("dit")
  images = np.random.default_rng(0).integers(0, 256, small.batch(model)["images"].shape, np.uint8)
  images[1] = images[0]
  known, passes = tokens.Tokens(model, params, batch_size=4), []
  encode = known._encode
  known._encode = lambda *args: passes.append(args) or encode(*args)
  found = known({"images": images, "state": images[:, 0, 0, 0, 0]})
  assert set(found) == {"tokens", "state"} and found["tokens"].dtype == np.float32
  np.testing.assert_allclose(found["tokens"], model.tokens(params, images), rtol=1e-4, atol=1e-5)
  different = len(np.unique(images.reshape((-1, images[0, 0, 0].size)), axis=0))
  assert len(known) == different < images.shape[0] * images.shape[1] * images.shape[2]
  assert len(passes) == -(-different // 4)
  again = known({"images": images[::-1]})
  assert len(passes) == -(-different // 4)
  np.testing.assert_array_equal(again["tokens"], found["tokens"][::-1])


def test_company_changes_no_token():
  model, params, _ = small.functions("dit")
  images = np.random.default_rng(1).integers(0, 256, small.batch(model)["images"].shape, np.uint8)
  whole = tokens.Tokens(model, params, batch_size=4)({"images": images})["tokens"]
  alone = tokens.Tokens(model, params, batch_size=4)({"images": images[-1:]})["tokens"]
  np.testing.assert_array_equal(alone, whole[-1:])


def test_training_is_the_same(run, path, tmp_path):
  losses = []
  for cached in (True, False):
    folder = tmp_path / str(cached)
    assert policy.run(parse(folder, f"--config.data.path={path}", f"--config.init={run}", "--config.data.augment.shift.on=False",
                            f"--config.policy.cache_tokens={cached}")) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses.append([line["loss"] for line in lines if line["kind"] == "train"])
  assert len(losses[0]) == 3
  np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize("words, message", [
    (("--config.data.augment.shift.on=False",), "needs a given encoder"),
    (("--config.init=RUN",), "switch off config.data.augment.shift.on"),
    (("--config.init=RUN", "--config.data.augment.shift.on=False", "--config.train.frozen=('encoder/position',)"), "needs a frozen encoder"),
])
def test_what_does_not_stay_the_same_is_refused(run, path, tmp_path, words, message):
  words = [word.replace("RUN", str(run)) for word in words]
  with pytest.raises(errors.UserError, match=message):
    policy.run(parse(tmp_path / "x", f"--config.data.path={path}", "--config.policy.cache_tokens=True", *words))
  assert not (tmp_path / "x").exists()
