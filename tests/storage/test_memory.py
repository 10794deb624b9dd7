import os

import pytest

from como_jax import errors, storage


def test_another_process_is_refused(monkeypatch):
  storage.write_bytes("memory://process/x", b"1")
  monkeypatch.setattr(os, "getpid", lambda: -1)
  with pytest.raises(errors.UserError, match="memory of another process: use no workers"):
    storage.read_bytes("memory://process/x")
