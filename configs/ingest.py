"""Turns any source into shards.

A source is a LeRobot directory (v2.0, v2.1, v3.0), a folder of video files of any codec, or a data
set of tensorflow-datasets in ArrayRecord.

python -m como_jax.main --config=configs/ingest.py --config.source.path=DIR --workdir=SHARDS

Run it again to go on after an interruption. Started on several hosts with the same SHARDS, it
shares the work. Unreadable files are listed with their reasons in SHARDS/quarantine.json.
"""

from como_jax import config as config_lib


def get_config(arg=None):
  """Variants: default (224 px), small and debug (64 px)."""
  name = config_lib.variant(arg, ("default", "small", "debug"), default="default")
  return config_lib.ConfigDict(
    dict(
      task="ingest",
      source=dict(
        path="bundled",
        format="auto",  # lerobot | video_folder | shards | tfds
        cameras=(),
        **config_lib.source(),
      ),
      output="",  # "" = the workdir
      shards=dict(
        image_size=224 if name == "default" else 64,  # 0 keeps the source's size
        resize="squash",  # squash | crop | pad
        codec="jpeg",  # h264 is about ten times smaller, slower to enter
        quality=95,
        clip_frames=128,
        episodes_per_shard=64,
        # about how many frames a shard may hold; longer videos become several episodes. 0: no bound
        unit_frames=0,
        # cuts, motion, still stretches, bars: auto (of videos, not of robot recordings) | on |
        # off
        measure="auto",
        filters=config_lib.filters(),
      ),  # what is left out
      workers=-1,  # processes; -1 = one per core
      # another host takes a shard when its holder has been silent for so long
      lease_seconds=60.0,
      runner="",  # beam: Apache Beam instead of leases
      runner_flags=(),  # of its pipeline, for example ("--runner=DirectRunner",)
    )
  )
