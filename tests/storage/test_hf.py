import hashlib
import http.server
import json
import threading

import pytest

from como_jax import errors, storage

DATA = b"episode data" * 100


@pytest.fixture
def hub(monkeypatch):
  """A server that speaks as the hub does: a redirect for large files, pages of the list."""

  class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, data=b"", **headers):
      self.send_response(status)
      for name, value in headers.items():
        self.send_header(name.replace("_", "-"), value)
      self.send_header("Content-Length", str(len(data)))
      self.end_headers()
      if self.command == "GET":
        self.wfile.write(data)

    def do_GET(self):
      server.tokens.add(self.headers.get("Authorization"))
      path, _, query = self.path.partition("?")
      if path == "/datasets/org/name/resolve/v1.0/data/a.bin":
        self.answer(
          302,
          Location=f"{server.url}/cdn/a.bin",
          X_Linked_Size=str(len(DATA)),
          X_Linked_Etag=f'"{server.digest}"',
        )
      elif path == "/cdn/a.bin":
        start, _, end = (self.headers.get("Range") or "bytes=0-")[6:].partition("-")
        data = DATA[int(start) : int(end) + 1 if end else None]
        self.answer(416 if int(start) >= len(DATA) else 206, data)
      elif path == "/org/model/resolve/main/config.json":
        self.answer(200, b"{}", ETag='"abc"')
      elif path == "/api/datasets/org/name/tree/v1.0/data":
        file = {"type": "file", "path": "data/a.bin", "size": len(DATA), "oid": "1"}
        file |= {"lfs": {"oid": server.digest}} if "cursor" not in query else {}
        file["path"] = "data/b.bin" if "cursor" in query else "data/a.bin"
        more = {"Link": f'<{server.url}{path}?cursor=2>; rel="next"'}
        folder = {"type": "directory", "path": "data/sub", "size": 0, "oid": "2"}
        data = json.dumps([file, folder]).encode()
        self.answer(200, data, **({} if "cursor" in query else more))
      else:
        self.answer(401 if "private" in path else 404)

    do_HEAD = do_GET

    def log_message(self, *args):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  server.url = f"http://127.0.0.1:{server.server_address[1]}"
  server.digest, server.tokens = hashlib.sha256(DATA).hexdigest(), set()
  threading.Thread(target=server.serve_forever, daemon=True).start()
  monkeypatch.setenv("HF_ENDPOINT", server.url)
  monkeypatch.setenv("HF_TOKEN", "secret")
  yield server
  server.shutdown()
  server.server_close()


def test_reads_what_the_hub_has(hub, tmp_path):
  path = "hf://datasets/org/name@v1.0/data/a.bin"
  assert storage.read_bytes(path) == DATA and storage.read_bytes(path, 5, 9) == DATA[5:14]
  assert storage.read_bytes(path, 10**6, 1) == b"" and storage.size(path) == len(DATA)
  assert storage.read_json("hf://org/model/config.json") == {}
  assert storage.listdir("hf://datasets/org/name@v1.0/data") == ["a.bin", "b.bin"]
  copy = storage.local_copy(path, cache=storage.Cache(tmp_path / "cache"))
  assert copy.read_bytes() == DATA and "Bearer secret" in hub.tokens


def test_a_damaged_download_is_not_taken(hub, tmp_path):
  hub.digest = "0" * 64
  store, key = storage.open_store("hf://datasets/org/name@v1.0/data/a.bin")
  with pytest.raises(errors.TransientError, match="arrived damaged"):
    store.download(key, tmp_path / "x")
  assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("hub")
def test_refuses_in_one_line():
  with pytest.raises(FileNotFoundError, match="none.bin"):
    storage.read_bytes("hf://datasets/org/name/none.bin")
  with pytest.raises(errors.UserError, match="status 401.*HF_TOKEN"):
    storage.read_bytes("hf://datasets/org/private/x")
  with pytest.raises(errors.UserError, match="expected hf://"):
    storage.read_bytes("hf://datasets/org")
  with pytest.raises(errors.UserError, match="can only be read"):
    storage.write_bytes("hf://datasets/org/name/x", b"")
