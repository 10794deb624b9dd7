import http.server
import threading

import pytest

from como_jax import errors
from como_jax.storage import http as storage_http


@pytest.fixture
def service():
  """Answers with the statuses in its list, one after another; None cuts the connection."""

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      status = server.statuses.pop(0)
      server.seen.append(self.headers.get("Range"))
      if status is None:
        self.connection.close()
        return
      self.send_response(status)
      self.send_header("Content-Length", "2")
      self.end_headers()
      self.wfile.write(b"ok")

    def log_message(self, *args):
      pass

  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
  server.statuses, server.seen = [], []
  threading.Thread(target=server.serve_forever, daemon=True).start()
  server.url = f"http://127.0.0.1:{server.server_address[1]}/x"
  yield server
  server.shutdown()
  server.server_close()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
  monkeypatch.setattr(storage_http, "_LONGEST", 0.0)


def test_a_busy_service_is_asked_again(service):
  service.statuses += [503, 429, None, 200]
  answer, tries = storage_http.Client().request("GET", service.url, headers={"Range": "bytes=1-"})
  assert answer.content == b"ok" and tries == 4 and service.seen == ["bytes=1-"] * 4


def test_other_errors_come_back_at_once(service):
  service.statuses += [403, 200]
  answer, tries = storage_http.Client().request("GET", service.url)
  assert (answer.status_code, tries, len(service.seen)) == (403, 1, 1)


def test_a_dead_service_is_temporary(service):
  service.statuses += [500] * 6
  with pytest.raises(errors.TransientError, match="does not answer: status 500"):
    storage_http.Client().request("GET", service.url)
  with pytest.raises(errors.TransientError, match="does not answer"):
    storage_http.Client().request("GET", "http://127.0.0.1:9/x")


def test_ranges():
  assert storage_http.byte_range(0, None) == {}
  assert storage_http.byte_range(2, 3) == {"Range": "bytes=2-4"}
  assert storage_http.byte_range(2, None) == {"Range": "bytes=2-"}
