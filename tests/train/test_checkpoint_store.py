"""Whole and half checkpoints in a store."""

import pytest

from como_jax import storage
from como_jax.train import checkpoint_store


@pytest.fixture
def address(tmp_path):
  return f"memory://checkpoints/{tmp_path.name}"


def save(folder, step, *, sealed=True):
  for name in ("state/array", "data/metadata", *(["checksums.json"] if sealed else [])):
    path = folder / "checkpoints" / str(step) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{name} of {step}")


def names(address):
  store, key = storage.open_store(address)
  return {entry.key[len(key) + 1 :]: entry.size for entry in store.list(key)}


def test_a_step_counts_once_its_marker_is_there(tmp_path, address, monkeypatch):
  save(tmp_path, 7)
  save(tmp_path, 9, sealed=False)
  assert checkpoint_store.finished(tmp_path) == [7]
  store, _ = storage.open_store(address)
  upload, left = store.upload, [2]

  def cut(path, key):
    if not left[0]:
      raise RuntimeError("killed")
    left[0] -= 1
    upload(path, key)

  monkeypatch.setattr(store, "upload", cut)
  with pytest.raises(RuntimeError):
    checkpoint_store.upload(tmp_path, address, 7)
  assert len(names(address)) == 2
  assert checkpoint_store.split(names(address)) == ({}, ["7"])
  left[0] = 9
  checkpoint_store.upload(tmp_path, address, 7)
  whole, half = checkpoint_store.split({**names(address), "checkpoints/8": 1, "config.json": 2})
  assert not half and sorted(whole[7]) == [
    f"checkpoints/7/{name}" for name in ("checksums.json", "data/metadata", "state/array")
  ]
  left[0] = 0
  checkpoint_store.upload(tmp_path, address, 7)  # it is there


def test_the_marker_is_removed_first(tmp_path, address, monkeypatch):
  save(tmp_path, 7)
  checkpoint_store.upload(tmp_path, address, 7)
  store, _ = storage.open_store(address)
  removed, remove = [], store.remove
  monkeypatch.setattr(store, "remove", lambda key: (removed.append(key), remove(key)))
  checkpoint_store.remove(address, 7)
  assert removed[0].endswith(f"/7/{checkpoint_store.MARKER}") and not names(address)


def test_only_the_newest_weights_of_a_run_are_copied(tmp_path, address, monkeypatch):
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path / "cache"))
  for step in (5, 7):
    save(tmp_path, step)
    checkpoint_store.upload(tmp_path, address, step)
  storage.write_text(f"{address}/config.json", "{}")
  storage.write_text(f"{address}/tensorboard/events", "x")
  storage.write_text(f"{address}/frozen/hash.safetensors", "f")
  store, key = storage.open_store(address)

  def local():
    folder = checkpoint_store.local(address, exported="weights")
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

  step = {f"checkpoints/7/{name}" for name in ("state/array", "data/metadata", "checksums.json")}
  step |= {"frozen/hash.safetensors"}  # a step refers to it
  assert local() == {"config.json"} | step
  storage.write_text(f"{address}/weights/params.safetensors", "p")
  storage.write_text(f"{address}/weights/config.json", '{"weights_version": 1, "weights_step": 6}')
  exported = {"weights/params.safetensors", "weights/config.json"}
  assert local() == {"config.json"} | step | exported
  storage.write_text(f"{address}/weights/config.json", '{"weights_version": 1, "weights_step": 7}')
  assert local() == {"config.json"} | exported
  store.remove(f"{key}/weights/params.safetensors")
  store.remove(f"{key}/checkpoints/7/{checkpoint_store.MARKER}")
  assert {name for name in local() if name.startswith("checkpoints")} == {
    name.replace("/7/", "/5/") for name in step if name.startswith("checkpoints")
  }
  assert checkpoint_store.local(tmp_path, exported="weights") == tmp_path
