import fcntl

import pytest

from como_jax import cli, errors, storage
from como_jax.storage import cache_command


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path))
  for name, size in {"shards/data/a": 1500, "runs/r-1/x": 7, "runs/r-2/x": 5}.items():
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
  storage.write_bytes("memory://command/w.bin", b"x" * 3000)
  storage.local_copy("memory://command/w.bin")
  return tmp_path


def test_list_and_size(root, capsys):
  assert cli.main(["como-jax", "cache", "list"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == str(root) and "3.0 KB" in lines[1] and lines[1].endswith("/w.bin")
  assert lines[2].endswith("runs/r-1") and lines[4].endswith("shards/data")
  size = cache_command.run(["size"])
  assert "1.5 KB  shards" in size and "12 B  runs" in size and "4.5 KB  in all" in size


def test_limit():
  assert "may hold 68.7 GB" in cache_command.run(["limit"])
  assert "may hold 2.0 KB" in cache_command.run(["limit", "2KB"])
  assert "0 B  remote" in cache_command.run(["size"])  # made to fit


def test_clear(root):
  assert cache_command.run(["clear"]).startswith("removed 3.0 KB")
  assert (root / "shards/data/a").exists()
  with (root / "runs/r-1/.lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert "in use and kept: r-1" in cache_command.run(["clear", "runs"])
  assert sorted(path.name for path in (root / "runs").iterdir()) == ["r-1"]
  assert "removed 1.5 KB" in cache_command.run(["clear", "shards"])
  assert not list((root / "shards").iterdir())


@pytest.mark.parametrize(
  "words, says",
  [
    (["lsit"], "cache 'lsit' is unknown: did you mean 'list'"),
    ([], "cache '' is unknown: valid: clear, limit, list, size"),
    (["list", "x"], "'x' is too much"),
    (["clear", "shard"], "did you mean 'shards'"),
    (["limit", "many"], "size 'many': expected"),
  ],
)
def test_refuses_in_one_line(words, says, capsys):
  with pytest.raises(errors.UserError, match=says):
    cache_command.run(words)
  assert cli.main(["como-jax", "cache", *words]) == 2
  assert capsys.readouterr().err.startswith("error: ")
