import pytest

from como_jax import errors, storage


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
  monkeypatch.setenv("COMO_JAX_CACHE", str(tmp_path))


def texts(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_text()
    for path in folder.rglob("*")
    if path.is_file()
  }


def test_only_what_changed_comes_again(place, capsys):
  for name in ("labels.json", "sub/a.labels"):
    storage.write_text(storage.join(place, "set", name), name)
  path = storage.join(place, "set")
  folder = storage.local_folder(path)
  assert texts(folder) == {"labels.json": "labels.json", "sub/a.labels": "sub/a.labels"}
  if not storage.is_remote(path):
    assert str(folder) == path
    return
  assert f"copying 23 bytes of {path}" in capsys.readouterr().out and folder.name == "set"
  assert storage.local_folder(path) == folder and not capsys.readouterr().out
  storage.write_text(storage.join(path, "labels.json"), "new")
  store, key = storage.open_store(storage.join(path, "sub/a.labels"))
  store.remove(key)
  assert texts(storage.local_folder(path)) == {"labels.json": "new"}
  assert "copying 3 bytes" in capsys.readouterr().out


def test_a_choice_of_files():
  for name in ("a", "b/c"):
    storage.write_text(f"memory://choice/x/{name}", name)
  chosen = storage.local_folder("memory://choice/x", select=lambda sizes: [min(sizes)])
  assert texts(chosen) == {"a": "a"}
  assert texts(storage.local_folder("memory://choice/x")) == {"a": "a", "b/c": "b/c"}


def test_nothing_there():
  with pytest.raises(errors.UserError, match="memory://choice/none does not exist"):
    storage.local_folder("memory://choice/none")
