"""See `FetchEnv`."""

from gymnasium_robotics.envs.fetch import FetchEnv

class MujocoFetchReachEnv(FetchEnv): ...
