"""Tokens of a frozen encoder, computed once: the same numbers, fewer passes, the same training."""

import contextlib
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from como_jax import config as config_lib
from como_jax import errors, weights
from como_jax.inference import token_cache
from como_jax.tasks import motion, policy
from tests.data import makers
from tests.models import tiny
from tests.models.policy import small
from tests.tasks.small_policy import parse


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
  known, passes = token_cache.TokenCache(model, params, batch_size=4), []
  encode = known._encode
  known._encode = lambda *args: passes.append(args) or encode(*args)
  found = known({"images": images, "state": images[:, 0, 0, 0, 0]})
  assert set(found) == {"tokens", "state"} and found["tokens"].dtype == np.float32
  np.testing.assert_allclose(
    found["tokens"], model.encode_images(params, images), rtol=1e-4, atol=1e-5
  )
  different = len(np.unique(images.reshape((-1, images[0, 0, 0].size)), axis=0))
  assert len(known) == different < images.shape[0] * images.shape[1] * images.shape[2]
  assert len(passes) == -(-different // 4)
  again = known({"images": images[::-1]})
  assert len(passes) == -(-different // 4)
  np.testing.assert_array_equal(again["tokens"], found["tokens"][::-1])


def test_company_changes_no_token():
  model, params, _ = small.functions("dit")
  images = np.random.default_rng(1).integers(0, 256, small.batch(model)["images"].shape, np.uint8)
  whole = token_cache.TokenCache(model, params, batch_size=4)({"images": images})["tokens"]
  alone = token_cache.TokenCache(model, params, batch_size=4)({"images": images[-1:]})["tokens"]
  np.testing.assert_array_equal(alone, whole[-1:])


def test_training_is_the_same(run, path, tmp_path):
  losses = []
  for cached in (True, False):
    folder = tmp_path / str(cached)
    assert (
      policy.run(
        parse(
          folder,
          f"--config.data.path={path}",
          f"--config.init={run}",
          "--config.data.augment.shift.on=False",
          f"--config.policy.cache_tokens={cached}",
        )
      )
      == 0
    )
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses.append([line["loss"] for line in lines if line["kind"] == "train"])
  assert len(losses[0]) == 3
  np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.fixture(scope="module", name="motion_job")
def _motion_job(tmp_path_factory):
  """The job of a tiny motion model, and its parameters."""
  path = makers.shards(tmp_path_factory.mktemp("frames") / "s", (24,) * 4, size=(16, 16))
  encoder = tmp_path_factory.mktemp("encoder") / "weights"
  section = tiny.section(tiny.MOTION, **{"idm.components": 6, "idm.components_pool": 2})
  params = tiny.made(section)[1]
  weights.save(encoder, {"encoder": params["encoder"]}, {"model": section}, step=0)

  def job(*words):
    changes = [
      f"--config.model={section}",
      f"--config.encoder_weights={encoder}",
      f"--config.data.path={path}",
      "--config.data.image_size=16",
      "--config.data.offset_seconds=0.5",
      "--config.data.augment.shift.on=False",
    ]
    return motion.job(
      config_lib.parse(["main", "--config=motion:debug", "--workdir=x", *changes, *words]).config
    ), params

  return job


def test_a_motion_model_learns_the_same_from_kept_tokens(motion_job, capsys):
  found = []
  for cached in (False, True):
    job, params = motion_job(f"--config.train.cache_tokens={cached}")
    batches = job.batches(2)
    batch = {name: value for name, value in next(batches).items() if name in job.batch}
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
      name: (spec.shape, spec.dtype) for name, spec in job.batch.items()
    }
    assert set(batch) == (
      {"frames", "frame_tokens", "jittered_tokens"} if cached else {"frames", "jittered"}
    )
    assert ("image tokens: " in capsys.readouterr().out) == cached
    found.append(jax.jit(job.loss)(params, batch, jax.random.key(0)))
    batches.close()
  assert len(found[0]) == len(found[1]) > 4
  for name, (total, count) in found[0].items():
    # kept in float16
    np.testing.assert_allclose(found[1][name][0], total, rtol=2e-3, atol=2e-3, err_msg=name)
    assert found[1][name][1] == count


@pytest.mark.parametrize(
  "words, message",
  [
    (
      ("--config.data.augment.shift.on=True",),
      "config.train.cache_tokens needs images that stay as they are: switch off",
    ),
    (("--config.encoder_weights=",), "needs a given encoder: set config.encoder_weights$"),
    (("--config.train.frozen=('encoder/position',)",), "needs a frozen encoder"),
    (
      ("--config.model.idm.inputs=rgb_diff", "--config.model.idm.components=0"),
      "config.model.idm.inputs=rgb_diff encodes their",
    ),
  ],
)
def test_a_motion_model_whose_tokens_change_is_refused(motion_job, words, message):
  with pytest.raises(errors.UserError, match=message):
    motion_job("--config.train.cache_tokens=True", *words)


@pytest.mark.parametrize(
  "words, message",
  [
    (("--config.data.augment.shift.on=False",), "needs a given encoder"),
    (("--config.init=RUN",), "switch off config.data.augment.shift.on"),
    (
      (
        "--config.init=RUN",
        "--config.data.augment.shift.on=False",
        "--config.train.frozen=('encoder/position',)",
      ),
      "needs a frozen encoder",
    ),
  ],
)
def test_what_does_not_stay_the_same_is_refused(run, path, tmp_path, words, message):
  words = [word.replace("RUN", str(run)) for word in words]
  with pytest.raises(errors.UserError, match=message):
    policy.run(
      parse(
        tmp_path / "x", f"--config.data.path={path}", "--config.policy.cache_tokens=True", *words
      )
    )
  assert not (tmp_path / "x").exists()


class Pixel:
  """A model whose token of an image is its first pixel, plus a number of the encoder's."""

  def encode_images(self, params, images):
    assert set(params) == {"encoder"}
    return (images[..., 0, 0, :1] + params["encoder"])[..., None, :].astype(np.float32)


def images(*values):
  return np.broadcast_to(
    np.array(values, np.uint8).reshape(-1, 1, 1, 1, 1, 1), (len(values), 1, 1, 2, 2, 3)
  ).copy()


def test_batches_with_tokens_in_the_place_of_images(monkeypatch, capsys):
  bars = []
  monkeypatch.setattr(
    token_cache.tqdm, "trange", lambda count, **more: bars.append((count, more)) or range(count)
  )
  known, passes = (
    token_cache.TokenCache(Pixel(), {"encoder": np.float32(100), "trunk": None}, batch_size=2),
    [],
  )
  encode = known._encode
  known._encode = lambda params, given: (
    passes.append(given[:, 0, 0, 0].tolist()) or encode(params, given)
  )
  closed, walk = (
    [],
    SimpleNamespace(
      num_batches=2,
      batches=lambda: contextlib.nullcontext(
        iter([{"images": images(1, 2, 3)}, {"images": images(2, 4)}, {"images": images(9)}])
      ),
    ),
  )
  assert (
    known.fill(walk) is known
    and len(known) == 4
    and bars == [(2, dict(desc="tokens", unit="batch", mininterval=10.0))]
  )
  assert capsys.readouterr().out == "image tokens: 4 images encoded, once\n"
  assert passes == [[1, 2], [3, 3], [4, 4]], "always as many; the third batch is not of the walk"

  class Source:
    def __next__(self):
      return {"images": images(3, 1), "more": 5}

    def close(self):
      closed.append(True)

  batches = known.over(Source())
  assert iter(batches) is batches
  batch = next(batches)
  assert (
    set(batch) == {"tokens", "more"}
    and batch["tokens"].shape == (2, 1, 1, 1, 1)
    and batch["tokens"].reshape(-1).tolist() == [103, 101]
  )
  batches.close()
  assert closed == [True] and len(passes) == 3
  more = token_cache.TokenCache(
    Pixel(),
    {"encoder": np.float32(100)},
    batch_size=2,
    names={"images": "a", "others": "b"},
    kept=("images",),
    dtype="float16",
  )
  batch = more({"images": images(3, 1), "rest": 5})
  assert (
    set(batch) == {"images", "a", "rest"}
    and batch["a"].dtype == np.float16
    and batch["images"].dtype == np.uint8
  )
  both = more({"images": images(3), "others": images(7, 1)})
  assert both["a"].reshape(-1).tolist() == [103] and both["b"].reshape(-1).tolist() == [107, 101]
  assert more.spec({"images": jax.ShapeDtypeStruct((5, 2, 3, 2, 2, 3), np.uint8)})[
    "a"
  ] == jax.ShapeDtypeStruct((5, 2, 3, 1, 1), np.float16)
  spec = known.spec(
    {"images": jax.ShapeDtypeStruct((5, 2, 3, 2, 2, 3), np.uint8), "more": "as it is"}
  )
  assert spec == {"more": "as it is", "tokens": jax.ShapeDtypeStruct((5, 2, 3, 1, 1), np.float32)}
