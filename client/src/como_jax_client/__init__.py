"""The robot's side of a policy server: numpy, msgpack and websockets.

`client.Client` connects and asks for chunks, `player.Player` and `player.ChunkQueue` play them,
`chunks.TemporalEnsemble` averages those that overlap.
"""

from como_jax_client.version import __version__ as __version__
