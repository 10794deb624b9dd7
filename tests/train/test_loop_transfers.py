"""The loop lets nothing be copied to the devices unasked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from como_jax.parallel import mesh as mesh_lib
from como_jax.train import checkpointer as checkpointer_lib
from como_jax.train import log, loop
from tests import toy


def test_a_step_that_transfers_arrays_unasked_is_refused(tmp_path):
  """A host array in the place of the batch would be copied at every step, unnoticed."""

  class Careless:
    mesh = mesh_lib.make(data=1, devices=jax.devices()[:1])

    def __call__(self, now, batch):
      return now, {"loss": jax.jit(jnp.sum)(np.ones(3, np.float32))}

  writer = log.Log(tmp_path, steps=1, start=0, tensorboard=False)
  checkpointer = checkpointer_lib.Checkpointer(tmp_path, keep=1)
  careless = loop.TrainLoop(
    Careless(), loop.Schedule(1, 1, 0), loop.Throughput(16, "pairs"), writer, checkpointer
  )
  now = toy.fresh(toy.make_optimizer()[0])
  with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
    careless.run(now, toy.batches(0))
  writer.close()
  checkpointer.close()
