import pytest

from tests.storage import servers


@pytest.fixture(scope="session")
def s3_server():
  with servers.s3() as environment:
    servers.make_s3_bucket(environment, "bucket")
    yield environment


@pytest.fixture(scope="session")
def gcs_server():
  with servers.gcs("bucket") as environment:
    yield environment


@pytest.fixture
def s3_environment(s3_server, monkeypatch):
  for name, value in s3_server.items():
    monkeypatch.setenv(name, value)
  return s3_server


@pytest.fixture
def gcs_environment(gcs_server, monkeypatch):
  for name, value in gcs_server.items():
    monkeypatch.setenv(name, value)
  return gcs_server


@pytest.fixture(params=["local", "memory", "s3", "gs"])
def place(request, tmp_path):
  """The address of an empty folder of each store that can be written."""
  if request.param == "local":
    return str(tmp_path / "store")
  if request.param in ("s3", "gs"):
    request.getfixturevalue({"s3": "s3_environment", "gs": "gcs_environment"}[request.param])
  return f"{request.param}://bucket/{tmp_path.name}"
