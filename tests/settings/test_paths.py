"""A path is one of this machine."""

import pytest

from tests.settings.words import parse, refused

URLS = ["data.path", "data.cache", "encoder_weights", "objectives.perceptual.weights_path"]


@pytest.mark.parametrize(
  "variant, key",
  [
    *[("motion:debug", key) for key in URLS],
    ("policy:debug", "init"),
    ("policy:debug", "data.labels"),
    ("policy:debug", "language.weights"),
    ("probe", "checkpoint"),
    ("probe", "data.path"),
    ("probe", "data.cache"),
    ("extract", "checkpoint"),
    ("extract", "lerobot"),
    ("ingest", "source.path"),
    ("ingest", "output"),
    ("collect", "output"),
    ("serve", "checkpoint"),
    ("rollout", "checkpoint"),
    ("quickstart", "source"),
    ("quickstart", "motion"),
    ("compile", "of"),
  ],
)
def test_urls_are_refused_wherever_a_path_is_expected(variant, key):
  for url in (
    "gs://bucket/run",
    "https://huggingface.co/datasets/lerobot/pusht",
    "hf://a/b",
    "file:///home/me",
  ):
    line = refused(f"--config={variant}", f"--config.{key}={url}")
    assert line.startswith(f"config.{key}={url}: URLs are not supported"), line


def test_urls_elsewhere_on_the_command_line():
  assert "--workdir=gs://bucket/run: URLs are not supported" in refused(
    "--config=motion:debug", "--workdir=gs://bucket/run"
  )
  assert "--config=gs://bucket/motion.py: URLs" in refused("--config=gs://bucket/motion.py")
  assert "mixture[0]['labels']=gs://b/l: URLs" in refused(
    "--config=policy:debug", "--config.data.mixture=({'path': 'a', 'labels': 'gs://b/l'},)"
  )
  assert parse("--config=serve", "--config.prompt=see http://a/b").prompt == "see http://a/b", (
    "a text is no path"
  )
