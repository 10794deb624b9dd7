"""One process at a time converts data into a folder."""

import multiprocessing
import threading
import time

import pytest

from como_jax import errors
from como_jax.data import locks
from tests.data import ingests, makers
from tests.data.ingests import QUICK


def test_who_waits_for_a_conversion_says_so(tmp_path, capsys, monkeypatch):
  source, cache = makers.video_folder(tmp_path / "videos"), str(tmp_path / "cache")
  arguments = dict(image_size=16, cache_dir=cache, **QUICK)
  path = ingests.ensure_shards(source, **arguments)
  capsys.readouterr()
  with locks.locked(f"{path}.lock"):
    waiting = threading.Thread(target=ingests.ensure_shards, args=(source,), kwargs=arguments)
    waiting.start()
    until = time.monotonic() + 30
    while "waiting for it" not in (said := capsys.readouterr().out) and time.monotonic() < until:
      time.sleep(0.01)
    assert f"another process converts this data and holds {path}.lock; waiting for it" in said
    assert waiting.is_alive()
    # as in a worker that imports its script
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(errors.UserError, match='needs .if __name__ == "__main__"'):
      ingests.ensure_shards(source, **arguments)
  waiting.join(timeout=30)
  assert not waiting.is_alive()
