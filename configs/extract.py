r"""Labels every frame of a data set with the latent motion of a trained, frozen motion model.

CoMo stage 1 makes the labels that stage 2 trains on.

python -m como_jax.main --config=configs/extract.py --config.checkpoint=RUN \
    --config.data.path=DIR --workdir=LABELS
    DIR: our shards, a LeRobot data set or a folder of videos. Killed? Give --resume: the labels
    are the same, byte for byte.
python -m como_jax.main --config=configs/extract.py:debug --config.checkpoint=RUN --workdir=LABELS
    small batches; without a path, RUN's data. Small model: about 100 frames a second on 2 CPU
    cores, 3 minutes for the bundled data (2 cameras, 17,870 frames)

A pair is a frame and the one nearest to offset_seconds later; labels hold the true time between the
two. Without a frame near enough (rates that vary), at the end of a segment (a cut, a gap) and where
a frame is damaged there is no label, and the run says how many those are. Every frame goes through
the encoder once.

Add --config.lerobot=DIR2 for a LeRobot v3 data set with the labels as columns
latent_motion.<camera>, .valid and .difference. A LeRobot v3 source is copied (its videos are
linked), anything else is written anew from the shards, one episode for each segment.

Several processes share the shards (launch/local_processes.py, or --distributed). With
--config.shared=True any number of independent ones do, on any hosts that share LABELS. LABELS holds
labels.json, records.parquet, a file and a sidecar for each shard, config.json and versions.json;
only speed.json differs between two runs. como_jax/data/labels.py says how to read them.
"""

import ml_collections

from como_jax import config as config_lib


def get_config(arg=None):
  """Variants: default, debug."""
  name = config_lib.variant(arg, ("default", "debug"), default="default")
  placeholder = ml_collections.config_dict.placeholder
  return config_lib.ConfigDict(
    dict(
      task="extract",
      checkpoint="",  # run directory or weights folder of a motion model
      # between the two frames of a motion; None: as the model was trained, on this data set if it
      # was among several
      offset_seconds=placeholder(float),
      # frames of one pass of the encoder, over all devices of a process
      batch_size=16 if name == "debug" else 128,
      pairs_batch=0,  # pairs of one pass of the rest; 0 = as many
      dtype="",  # float32 | bfloat16; "" = as the model was trained
      lerobot="",  # also write this LeRobot data set
      mesh=dict(data=-1, fsdp=1, tensor=1),  # of the devices of a process
      timeout=3_600.0,  # seconds without a new shard after which process 0 gives up the others
      # whether other runs of this config, started before or after, share the shards by leases
      shared=False,
      # of those: another one takes a shard when its holder has been silent for so long
      lease_seconds=60.0,
      runner="",  # beam: Apache Beam instead of leases
      runner_flags=(),  # of its pipeline, for example ("--runner=DirectRunner",)
      data=dict(
        path=placeholder(str),  # None: what the model was trained on
        cameras=(),  # () = every camera
        resize=placeholder(str),  # squash | crop | pad when shards are made; None: as in training
        cache="",  # "" = ~/.cache/como_jax/shards
        # processes that decode; 0 = threads of this one; -1 = as in training (data/read_options.py)
        workers=-1,
        threads=-1,
        prefetch=-1,
      ),  # clips decoded ahead, of each worker
    )
  )
