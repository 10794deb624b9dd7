"""A process of two that restore a run; prints what it read and got, as JSON. Started by a test.

Arguments: the run directory, the size of the axis fsdp, and whether the single reading is on.
"""

import json
import pathlib
import sys
import traceback

import jax
import numpy as np
import tensorstore
import xxhash

from como_jax import trees
from como_jax.parallel import distributed, startup
from como_jax.parallel import mesh as mesh_lib
from como_jax.train import checkpointer, single_reading
from tests import toy

_READ = "/tensorstore/kvstore/file/bytes_read"


def bytes_read() -> int:
  """Bytes that TensorStore has read from files in this process."""
  return sum(
    value["value"]
    for metric in tensorstore.experimental_collect_matching_metrics(_READ)
    for value in metric["values"]
  )


def main() -> None:
  workdir, fsdp, on = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "on"
  startup.initialize()
  mesh = mesh_lib.make(fsdp=fsdp)
  fresh = toy.fresh(toy.make_optimizer()[0], ema=True, width=int(sys.argv[4]))
  if not on:
    single_reading.replicas = lambda target: 1
  restoring = checkpointer.Checkpointer(workdir, keep=5, frozen=toy.FROZEN)
  before = bytes_read()
  restored = restoring.restore(fresh, mesh)
  read = bytes_read() - before
  restoring.close()
  # np.asarray of a shard: the sign of a zero counts
  own = [
    xxhash.xxh64_hexdigest(np.asarray(shard.data).tobytes())
    for leaf in jax.tree.leaves(restored)
    for shard in leaf.addressable_shards
  ]
  whole = distributed.gather(restored)
  digest = {
    name: xxhash.xxh64_hexdigest(np.asarray(leaf).tobytes())
    for name, leaf in trees.flatten(whole.params).items()
  }
  split = sorted({str(leaf.sharding.spec) for leaf in jax.tree.leaves(restored)})
  print("RESULT " + json.dumps({"read": read, "own": own, "params": digest, "split": split}))


if __name__ == "__main__":
  try:
    main()
  except Exception:  # the other process would be waited for
    traceback.print_exc()
    distributed.exit_immediately(1)
