import pytest

from como_jax import errors, storage
from como_jax.storage import gcs


@pytest.mark.usefixtures("gcs_environment")
def test_a_large_file_goes_in_parts(tmp_path, monkeypatch):
  monkeypatch.setattr(gcs, "_PART", 256 << 10)
  store, key = storage.open_store("gs://bucket/large")
  source, target = tmp_path / "source", tmp_path / "target"
  source.write_bytes(bytes(range(256)) * 2500)  # 640,000 bytes
  with storage.byte_counter() as counted:
    store.upload(source, key)
    store.download(key, target)
  assert target.read_bytes() == source.read_bytes()
  assert counted.requests["gs://bucket"] == 3 + 1 + 3


@pytest.mark.usefixtures("gcs_environment")
def test_a_damaged_download_is_not_taken(tmp_path, monkeypatch):
  store, key = storage.open_store("gs://bucket/damaged")
  store.write(key, b"content")
  monkeypatch.setattr(store, "read", lambda key, start, size: b"Content")
  with pytest.raises(errors.TransientError, match="arrived damaged"):
    store.download(key, tmp_path / "x")
  assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("gcs_environment")
def test_wrong_addresses():
  with pytest.raises(errors.UserError, match="there is no bucket 'none'"):
    storage.write_bytes("gs://none/x", b"1")


def test_no_credentials(monkeypatch, tmp_path):
  monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
  monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
  with pytest.raises(errors.UserError, match="gcloud auth application-default login"):
    gcs.GcsStore("bucket")
