"""What is said of a finished label set."""

from como_jax.inference import label_summary


def manifest(**changes):
  return {
    "damaged": [],
    "at_end": 0,
    "left_out": 0,
    "unreadable": 0,
    "offset_seconds": 0.3,
    "valid": 40,
    "size": 12,
    "frames": 50,
    "cameras": ["a", "b"],
    **changes,
  }


def test_what_is_said_of_the_labels():
  assert label_summary.text(manifest(), {}, folder="W") == (
    "frames without a motion (valid = 0): none\nlabels: 40 motions of 12 numbers for 50 frames, "
    "cameras a, b -> W"
  )
  damaged = [{"shard": 2, "clip": 3, "camera": "a", "frames": 4, "reason": "torn"}]
  assert label_summary.text(
    manifest(damaged=damaged, at_end=5, left_out=6, unreadable=7),
    {"frames_per_s": 123.45, "wait_share": 0.25},
    folder="W",
  ) == (
    "damaged: shard-00002.shard clip 3 camera a: 4 frames cannot be read: torn\nframes without a "
    "motion (valid = 0): 5 at the end of a segment, 6 left out (no frame is near enough to 0.3 s "
    "later), 7 lost with damaged frames\nlabels: 40 motions of 12 numbers for 50 frames, cameras "
    "a, b, 123.5 frames/s, waited for data 25.0% -> W"
  )
