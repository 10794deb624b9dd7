"""A path is one of this machine, or an address where a key can use that."""

import pytest

from como_jax.settings import paths
from tests.settings.words import parse, refused

STORED = ["encoder_weights", "objectives.perceptual.weights_path"]


@pytest.mark.parametrize(
  "variant, key",
  [
    ("motion:debug", "data.cache"),
    ("probe", "data.cache"),
    ("extract", "lerobot"),
    ("ingest", "source.path"),
    ("ingest", "output"),
    ("collect", "output"),
    ("quickstart", "source"),
    ("quickstart", "motion"),
    ("compile", "of"),
  ],
)
def test_urls_are_refused_wherever_a_local_path_is_expected(variant, key):
  for url in (
    "gs://bucket/run",
    "https://huggingface.co/datasets/lerobot/pusht",
    "hf://a/b",
    "file:///home/me",
  ):
    line = refused(f"--config={variant}", f"--config.{key}={url}")
    assert line.startswith(f"config.{key}={url}: URLs are not supported"), line


@pytest.mark.parametrize(
  "variant, key",
  [
    *[("motion:debug", key) for key in (*STORED, "data.path")],
    ("probe", "data.path"),
    *[("policy:debug", key) for key in ("init", "data.labels", "language.weights")],
    *[(task, "checkpoint") for task in ("probe", "extract", "serve", "rollout")],
  ],
)
def test_addresses_of_stores_where_a_key_reads_them(variant, key):
  assert key in paths.STORED
  for url in ("s3://bucket/run", "gs://bucket/run", "hf://a/b/run"):
    value = parse(f"--config={variant}", f"--config.{key}={url}")
    for part in key.split("."):
      value = value[part]
    assert value == url
  for url in ("https://huggingface.co/datasets/lerobot/pusht", "file:///home/me", "s4://b/k"):
    line = refused(f"--config={variant}", f"--config.{key}={url}")
    assert line.startswith(f"config.{key}: {url}: "), line


def test_urls_elsewhere_on_the_command_line():
  for url, says in {
    "gcs://bucket/run": "no store for gcs://: did you mean 'gs'?",
    "https://bucket/run": "no store for https://",
    "hf://datasets/a/b": "can only be read",
    "gs:/bucket/run": "begins with gs://, with two slashes",
    "s3://": "no bucket, expected s3://BUCKET/KEY",
    "memory://a/b": "is memory of this process, gone at its end: give a local path, gs:// or s3://",
  }.items():
    line = refused("--config=motion:debug", f"--workdir={url}")
    assert line.startswith(f"--workdir: {url}") and says in line
  assert "--config=gs://bucket/motion.py: URLs" in refused("--config=gs://bucket/motion.py")
  assert "mixture[0]['labels']: gcs://b/l: no store for gcs://" in refused(
    "--config=policy:debug", "--config.data.mixture=({'path': 'a', 'labels': 'gcs://b/l'},)"
  )
  assert parse("--config=serve", "--config.prompt=see http://a/b").prompt == "see http://a/b", (
    "a text is no path"
  )
