"""Settings of a small collection."""

from como_jax.sim import collect

SETTINGS = collect.Settings(
  simulator="metaworld",
  cameras=("corner4", "corner", "topview"),
  cameras_per_episode=2,
  image_size=32,
  scenes=(0, 1),
  repeated=1,
  motions=2,
  stride=4,
  tail=4,
  noise=0.1,
  correlation=0.8,
  speed=(0.8, 1.0),
  wander=(0, 8),
  max_steps=300,
  attempts=3,
  seed=0,
)
