"""What the manifest remarks of an ingest."""

from como_jax.data import ingest_manifest


def test_remarks():
  manifest = {
    "quarantine": [{"name": f"q{i}", "reason": "bad"} for i in range(3)],
    "skipped": [{"name": "s", "reason": "odd"}] * 2,
    "notes": [{"name": "n", "note": "said"}],
    "frames": {"kept": 5, "still": 2, "repeated": 1},
    "cameras_not_stored": ["left", "top"],
  }
  end = [
    "frames: 5 kept, left out: 2 still, 1 repeated",
    "cameras that the source has and that are not stored: left, top",
  ]
  assert ingest_manifest.remarks(manifest, max_lines=2) == [
    "quarantined: q0: bad",
    "quarantined: q1: bad",
    "quarantined: 1 more, all in manifest.json",
    "not used: s: odd",
    "not used: s: odd",
    "note: n: said",
    *end,
  ]
  assert (
    ingest_manifest.remarks(manifest | {"frames": {"still": 4}})[-2]
    == "frames: 0 kept, left out: 4 still"
  )
  assert (
    ingest_manifest.remarks(manifest | {"frames": {"kept": 4}, "cameras_not_stored": []})[-1]
    == "note: n: said"
  )
  many = ingest_manifest.remarks(manifest | {"notes": [{"name": "n", "note": "said"}] * 21})
  assert many.count("note: n: said") == 20 and "note: 1 more, all in manifest.json" in many
