from como_jax import storage


def test_counts_what_is_asked_while_it_is_open(tmp_path):
  path = tmp_path / "x"
  path.write_bytes(b"0123456789")
  with storage.byte_counter() as outer:
    storage.read_bytes(path, 2, 3)
    with storage.byte_counter() as inner:
      storage.read_bytes(path)
      storage.write_bytes("memory://counting/x", b"abcd")
  storage.read_bytes(path)
  assert outer.requests == {"local": 2, "memory://counting": 1}
  assert outer.bytes_read["local"] == 13 and inner.bytes_read["local"] == 10
  assert inner.bytes_written == {"local": 0, "memory://counting": 4}
