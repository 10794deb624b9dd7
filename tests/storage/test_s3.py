import pytest

from como_jax import errors, storage
from como_jax.storage import s3

pytestmark = pytest.mark.usefixtures("s3_environment")


def test_a_large_file_goes_in_parts(tmp_path):
  store, key = storage.open_store("s3://bucket/large")
  source, target = tmp_path / "source", tmp_path / "target"
  source.write_bytes(bytes(range(256)) * (20 << 12))  # 20 MiB
  store.upload(source, key)
  assert "-" in store.stat(key).version  # the ETag of parts
  store.download(key, target)
  assert target.read_bytes() == source.read_bytes()


def test_a_damaged_download_is_not_taken(tmp_path, monkeypatch):
  store, key = storage.open_store("s3://bucket/damaged")
  store.write(key, b"content")
  monkeypatch.setattr(s3, "_md5", lambda file: "0" * 32)
  with pytest.raises(errors.TransientError, match="arrived damaged"):
    store.download(key, tmp_path / "x")
  assert not list(tmp_path.iterdir())


def test_wrong_addresses():
  store, key = storage.open_store("s3://no-such-bucket/x")
  for ask in (lambda: store.read(key), lambda: store.write(key, b""), lambda: store.list("")):
    with pytest.raises(errors.UserError, match="there is no bucket 'no-such-bucket'"):
      ask()
  with pytest.raises(errors.UserError, match="no_bucket!"):
    storage.read_bytes("s3://no_bucket!/x")


def test_a_store_that_ignores_conditions_is_refused(monkeypatch):
  store = s3.S3Store("bucket")
  put = store._client.put_object
  monkeypatch.setattr(
    store._client,
    "put_object",
    lambda **more: put(**{k: v for k, v in more.items() if k not in ("IfNoneMatch", "IfMatch")}),
  )
  with pytest.raises(errors.UserError, match="s3://bucket ignores conditional writes"):
    store.write_if("ignored", b"1", None)


def test_no_credentials(monkeypatch, tmp_path):
  for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
    monkeypatch.delenv(name)
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
  with pytest.raises(errors.UserError, match="set AWS_ACCESS_KEY_ID"):
    s3.S3Store("bucket").read("x")


def test_a_dead_store_is_temporary(monkeypatch):
  monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
  monkeypatch.setattr(s3, "_TRIES", 1)
  with pytest.raises(errors.TransientError, match="does not answer"):
    s3.S3Store("bucket").read("x")
