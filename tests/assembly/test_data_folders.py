"""Paths of data, and what raw data are read with."""

import os
import pathlib

import pytest

from como_jax import config as config_lib
from como_jax import storage
from como_jax.assembly import data_folders
from como_jax.data import ingest_settings
from tests.refusals import text_of


def test_a_path_is_there_or_its_key_is_named(tmp_path, monkeypatch):
  assert (
    data_folders.resolve("bundled") == str(data_folders.BUNDLED) and data_folders.BUNDLED.is_dir()
  )
  assert data_folders.resolve(str(tmp_path)) == str(tmp_path)
  (tmp_path / "runs1").mkdir()
  (tmp_path / "runs1" / "manifest.json").write_text("{}")
  assert text_of(lambda: data_folders.resolve(f"{tmp_path}/rums1/", name="config.x")) == (
    f"config.x '{tmp_path}/rums1/' does not exist: did you mean '{tmp_path}/runs1'? (valid: "
    f"{tmp_path}/runs1, bundled)"
  )
  assert (
    text_of(lambda: data_folders.resolve("memory://a/b", name="config.x"))
    == "config.x: data path memory://a/b does not exist"
  )
  assert text_of(lambda: data_folders.resolve("gcs://a/b", name="config.x")).startswith("config.x")
  storage.write_text("memory://folders/b/manifest.json", "{}")
  assert data_folders.resolve("memory://folders/b/") == "memory://folders/b"
  monkeypatch.chdir(tmp_path)
  assert (
    text_of(lambda: data_folders.resolve("rums1"))
    == "data path 'rums1' does not exist: did you mean 'runs1'? (valid: bundled, runs1)"
  )
  assert (
    text_of(lambda: data_folders.resolve(""))
    == "data path '' does not exist: valid: bundled, runs1"
  )
  assert text_of(lambda: data_folders.resolve("lerobot/pusht")) == (
    "data path 'lerobot/pusht' does not exist: data sets of a hub are not downloaded: give a "
    "local folder"
  )
  assert (
    text_of(lambda: data_folders.resolve("runs1/zzz"))
    == "data path 'runs1/zzz' does not exist: valid: bundled"
  ), "a folder that is there"
  assert (
    text_of(lambda: data_folders.resolve("a/b/c"))
    == "data path 'a/b/c' does not exist: valid: bundled"
  )


@pytest.mark.parametrize(
  "files, holds",
  [
    (("manifest.json",), True),
    (("meta/info.json",), True),
    (("dataset_info.json", "features.json"), True),
    (("features.json",), False),
    (("a.MP4",), True),
    (("deep/a.mp4",), False),
    ((), False),
  ],
)
def test_what_looks_like_data(tmp_path, files, holds):
  for name in files:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
  assert data_folders._holds_data(str(tmp_path)) is holds and not data_folders._holds_data(
    str(tmp_path / "no")
  )


def test_a_folder_that_may_not_be_read_is_no_data(tmp_path, monkeypatch):
  (tmp_path / "manifest.json").touch()
  monkeypatch.setattr(data_folders.os, "access", lambda path, how: how != os.R_OK | os.X_OK)
  assert not data_folders._holds_data(str(tmp_path))


def test_where_converted_data_are_kept(monkeypatch):
  monkeypatch.setenv("COMO_JAX_CACHE", "/cache")
  assert data_folders.cache_dir() == "/cache/shards"
  monkeypatch.delenv("COMO_JAX_CACHE")
  monkeypatch.setattr(data_folders.pathlib.Path, "home", lambda: pathlib.Path("/home/me"))
  assert data_folders.cache_dir() == "/home/me/.cache/como_jax/shards"


def test_raw_data_are_read_as_the_section_says(monkeypatch):
  asked = []
  monkeypatch.setattr(
    data_folders.ingest,
    "ensure_shards",
    lambda *given, **more: asked.append((*given, more)) or "SHARDS",
  )
  monkeypatch.setenv("COMO_JAX_CACHE", "/c")
  section = {"resize": "crop", "image_size": 32, "cache": ""}
  assert data_folders.to_shards("raw", section) == "SHARDS"
  section = {
    "image_size": 16,
    "cache": "/d",
    "resize": "pad",
    "measure": True,
    "filters": config_lib.ConfigDict({"a": 1}),
    "source": {"action_key": "act", "camera_keys": ["x"], "path": "p"},
  }
  data_folders.to_shards("raw", section)
  storage = ingest_settings.StorageOptions
  assert asked[0] == ("raw", storage(32, "crop"), dict(cache_dir="/c/shards", options=None))
  options = asked[1][2].pop("options")
  assert asked[1] == (
    "raw",
    storage(16, "pad", measure=True, filters={"a": 1}),
    dict(cache_dir="/d"),
  )
  assert (options.action_key, options.camera_keys) == ("act", ("x",))
