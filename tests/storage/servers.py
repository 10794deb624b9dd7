"""Object servers of the tests, each a process of its own: moto for s3://, an emulator for gs://."""

import contextlib
import http.client
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator

from tests import limits

S3_KEYS = {
  "AWS_ACCESS_KEY_ID": "test",
  "AWS_SECRET_ACCESS_KEY": "test",
  "AWS_DEFAULT_REGION": "us-east-1",
}


def free_port() -> int:
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def _answers(port: int, path: str) -> bool:
  try:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    return connection.getresponse().status < 500
  except OSError:
    time.sleep(0.05)
    return False


@contextlib.contextmanager
def _process(command: list[str], port: int, path: str) -> Iterator[None]:
  environment = {key: value for key, value in os.environ.items() if "PROXY" not in key.upper()}
  process = subprocess.Popen(
    command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
  )
  try:
    assert limits.wait_until(lambda: _answers(port, path), while_alive=process), command
    yield
  finally:
    process.kill()
    process.wait()


@contextlib.contextmanager
def s3() -> Iterator[dict[str, str]]:
  """A moto server; gives the environment of its clients. It has no bucket yet."""
  port = free_port()
  command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
  with _process(command, port, "/moto-api/"):
    yield {**S3_KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


def make_s3_bucket(environment: dict[str, str], name: str) -> None:
  port = urllib.parse.urlsplit(environment["AWS_ENDPOINT_URL"]).port
  connection = http.client.HTTPConnection("127.0.0.1", port)
  connection.request("PUT", f"/{name}")
  assert connection.getresponse().status == 200


@contextlib.contextmanager
def gcs(bucket: str) -> Iterator[dict[str, str]]:
  """The emulator behind a proxy that obeys ifGenerationMatch, which it ignores itself."""
  port = free_port()
  command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1"]
  command += ["--port", str(port), "--in-memory", "--default-bucket", bucket, "--quiet"]
  with _process(command, port, "/"), _Proxy(port) as proxy:
    yield {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{proxy.server_address[1]}"}


@contextlib.contextmanager
def holding(environment: dict[str, str], path: str) -> Iterator[tuple[dict[str, str], "_Proxy"]]:
  """A way to a moto server on which a PUT whose path ends with `path` stops, until `go` is set."""
  port = urllib.parse.urlsplit(environment["AWS_ENDPOINT_URL"]).port
  with _Proxy(port, hold=path) as proxy:
    yield {**environment, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.server_address[1]}"}, proxy


class _Proxy(http.server.ThreadingHTTPServer):
  """Passes requests on, one at a time, if the generation of the object is the asked one."""

  daemon_threads = True

  def __init__(self, target: int, *, hold: str = ""):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.target, self.lock, self.hold = target, threading.Lock(), hold
    self.held, self.go = threading.Event(), threading.Event()

  def __enter__(self):
    threading.Thread(target=self.serve_forever, daemon=True).start()
    return super().__enter__()

  def __exit__(self, *args):
    self.shutdown()
    super().__exit__(*args)


class _Handler(http.server.BaseHTTPRequestHandler):
  server: _Proxy
  protocol_version = "HTTP/1.1"

  def _ask(self, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
    connection.request(method, path, body, dict(headers))
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.getheaders()

  def _generation(self, bucket, name):
    path = f"/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}"
    status, body, _ = self._ask("GET", path)
    return str(json.loads(body)["generation"]) if status == 200 else "0"

  def _pass(self):
    body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
    url = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(url.query))
    headers = [
      (name, value)
      for name, value in self.headers.items()
      if name.lower() not in ("connection", "content-length")
    ]
    if self.server.hold and self.command == "PUT" and url.path.endswith(self.server.hold):
      self.server.held.set()
      self.server.go.wait()
    with self.server.lock:
      parts = url.path.split("/")
      name = query.get("name") or urllib.parse.unquote(parts[-1])
      bucket = parts[parts.index("b") + 1] if "b" in parts else ""
      wanted = query.get("ifGenerationMatch") or query.get("generation")
      if wanted is not None and self._generation(bucket, name) != wanted:
        status, data, sent = (412 if "ifGenerationMatch" in query else 404), b"{}", []
      else:
        status, data, sent = self._ask(self.command, self.path, body or None, headers)
    self.send_response(status)
    for key, value in sent:
      if key.lower() not in ("connection", "content-length", "transfer-encoding", "date", "server"):
        self.send_header(key, value)
    self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    if self.command != "HEAD":
      self.wfile.write(data)

  do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = _pass

  def log_message(self, *args):
    pass
