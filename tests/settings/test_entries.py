"""Entries of a mixture."""

import pytest

MIXTURES = [
  ("({'path': 'bundled'})", "({'path': 'A'},) with its comma"),
  ("bundled", "expected a dict"),
  ("('bundled',)", "expected a dict"),
  ("5", "expected a dict"),
  ("{'path': 'bundled'}", "a tuple of dicts"),
  ("({'path': 'bundled'}, 3)", "mixture[1]"),
  ("({'path': 'bundled',)", "a tuple of dicts"),
  ("({'path': bundled},)", "a tuple of dicts"),
  ("({'weight': 1.0},)", "no 'path'"),
  ("({},)", "no 'path'"),
  ("({'pth': 'bundled'},)", "did you mean 'path'"),
  ("({'path': 'gcs://bucket/a'},)", "no store for gcs://"),
  ("({'path': 'no/such/folder'},)", "no/such/folder"),
]
WRONG_ENTRIES = {
  "path": ("5", "''", "None", "('a',)"),
  "weight": ("'2'", "0", "-1", "None", "(1,)", "True", "{}"),
  "offset_seconds": ("'0.2'", "0", "-0.5", "None"),
  "cameras": ("5", "(1,)", "{'a': 1}", "None", "('a', None)"),
  "name": ("5", "('a',)", "None"),
  "robot": ("5", "'a.b'", "('a',)", "None"),
  "labels": ("5", "('a',)", "None", "'gs://b/l'", "'no/such/labels'"),
  "views": ("'eech'", "5", "None", "('each',)"),
  "episodes": ("2", "'2'", "(1,)", "(2, 1)", "(-1, 2)", "(0, 1, 2)", "(0.5, 2)", "{}", "None"),
  "tasks": ("5", "{}", "None", "(1,)"),
}


@pytest.mark.parametrize(
  "variant, keys",
  [
    ("motion:debug", ("path", "weight", "offset_seconds", "cameras", "name")),
    ("mae:debug", ("path", "weight", "cameras")),
    ("policy:debug", tuple(key for key in WRONG_ENTRIES if key != "offset_seconds")),
  ],
)
def test_every_wrong_entry_of_a_mixture_is_one_line(ends, variant, keys):
  for text, expected in MIXTURES:
    line = ends(f"--config={variant}", f"--config.data.mixture={text}")
    assert line and expected in line, (text, line)
  for key in keys:
    for value in WRONG_ENTRIES[key]:
      line = ends(
        f"--config={variant}", f"--config.data.mixture=({{'path': 'bundled', '{key}': {value}}},)"
      )
      assert line and f"mixture[0]['{key}']" in line, (key, value, line)
    line = ends(
      f"--config={variant}", f"--config.data.mixture=({{'path': 'bundled', '{key}x': 1}},)"
    )
    assert line and f"did you mean {key!r}" in line, line
