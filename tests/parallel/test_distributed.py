"""What processes tell each other, and the loss of one.

Real processes: tests/end_to_end/test_processes.py.
"""

import jax
import numpy as np
import pytest

from como_jax import errors
from como_jax.parallel import distributed, mesh


def test_processes_with_the_same_text_are_counted(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 3)
  asked = []

  def gather(mine):
    asked.append(mine)
    return np.stack([mine, mine ^ 1, mine])

  monkeypatch.setattr(distributed.multihost_utils, "process_allgather", gather)
  distributed.count_colocated.cache_clear()
  # later it asks nobody
  assert (
    distributed.count_colocated("host") == distributed.count_colocated("host") == 2
    and len(asked) == 1
  )
  distributed.count_colocated.cache_clear()


def test_in_one_process_everything_is_plain():
  assert (
    distributed.run_on_all_processes(lambda: 3) == 3
    and distributed.is_primary()
    and distributed.broadcast_from_primary("ü") == "ü"
  )
  distributed.assert_same_on_all("a", what="x")
  with pytest.raises(errors.UserError, match="mine"):
    distributed.run_on_all_processes(lambda: (_ for _ in ()).throw(errors.UserError("mine")))
  exchange = distributed.AsyncAllGather(mesh.make(), count=2)
  assert exchange.alone
  np.testing.assert_array_equal(exchange.read(exchange.send(15, 0.5)), [[15, 0.5]])
  sharded = jax.device_put(np.arange(8.0), mesh.batch_sharding(mesh.make(data=8)))
  np.testing.assert_array_equal(distributed.gather({"x": sharded})["x"], np.arange(8.0))


@pytest.mark.parametrize(
  "text",
  [
    (
      "UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read error "
      "[127.0.0.1]:23696: Connection reset by peer"
    ),
    "UNAVAILABLE: Failed to send RPC to coordination service.",
    "DEADLINE_EXCEEDED: Barrier timed out. Id: como_jax/end",
  ],
)
def test_the_loss_of_another_process_asks_for_a_restart(monkeypatch, text):
  error = jax.errors.JaxRuntimeError(text + "\nmore")
  # A single process has nobody to lose.
  with pytest.raises(jax.errors.JaxRuntimeError), distributed.peers():
    raise error
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with (
    pytest.raises(
      errors.TransientError, match="another process of the run is gone .*--resume"
    ) as caught,
    distributed.peers(),
  ):
    raise error
  assert "\n" not in str(caught.value) and caught.value.code == 75
  wrapped = ValueError("a save failed")
  wrapped.__cause__ = error
  assert distributed.lost_process(wrapped)
  for own in (
    ValueError("shapes differ"),
    jax.errors.JaxRuntimeError("INVALID_ARGUMENT: else"),
    errors.UserError("Connection refused"),
  ):
    with pytest.raises(type(own)) as caught, distributed.peers():
      raise own
    assert caught.value is own
