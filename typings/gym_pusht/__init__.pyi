"""See `envs.pusht`."""
