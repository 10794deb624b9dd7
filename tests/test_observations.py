"""Names of observations."""

from como_jax import observations


def test_cameras_are_found_by_their_keys():
  seen = {
    observations.STATE: 0,
    observations.IMAGE + "top": 1,
    observations.TASK: "go",
    observations.IMAGE + "wrist": 2,
  }
  assert list(seen)[1] == "observation.images.top" and observations.cameras(seen) == [
    "top",
    "wrist",
  ]
