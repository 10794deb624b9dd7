"""Labeling that a test can hold: python -m tests.tasks.shared_labels NAME FOLDER words...

Before the part that begins with the first clip of shard s, it makes FOLDER/at-NAME-s, and before a
later part FOLDER/at-NAME-s+. It stops there while FOLDER/hold-NAME-... is there. Parts are short.
"""

import pathlib
import sys
import time

from como_jax import config as config_lib
from como_jax.inference import label_parts, labeling
from como_jax.tasks import extract


def hold(name, folder):
  """Replaces `labeling.label` by one that can be held."""
  label, seen = labeling.label, set()

  def held(part, *rest):
    place = f"{name}-{part.shard}" + "+" * (part.shard in seen)
    seen.add(part.shard)
    (folder / f"at-{place}").touch()
    while (folder / f"hold-{place}").exists():
      time.sleep(0.01)
    return label(part, *rest)

  labeling.label, label_parts.PART_BATCHES = held, 2


if __name__ == "__main__":
  hold(sys.argv[1], pathlib.Path(sys.argv[2]))
  sys.exit(extract.run(config_lib.parse(["main", *sys.argv[3:]])))
