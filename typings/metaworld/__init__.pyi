"""The part of Meta-World 3.1 that `como_jax/sim` uses."""

from metaworld import env_dict as env_dict
from metaworld import policies as policies

__file__: str
__version__: str
