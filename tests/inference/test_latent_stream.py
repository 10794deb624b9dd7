"""A stream of frames gives the latent motion of each pair."""

import jax
import numpy as np

from como_jax.inference import latent_stream
from como_jax.models import pixels
from como_jax.parallel import mesh as mesh_lib
from tests.models import tiny


def test_a_stream_gives_each_pair_back_once_whatever_the_sizes(tmp_path):
  """Sparse and dense pairs, short and long reach, pieces of any length; early batches of pairs when
  the ring would be overwritten.
  """
  model, params = tiny.made(tiny.MOTION)
  frames = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), np.uint8)
  whole = jax.jit(lambda a, b: model.encode(params, pixels.normalize(a), pixels.normalize(b)).z)
  for reach, pairs_batch, cuts, every in ((20, 8, (1, 7, 30, 50), 1), (1, 32, (13, 14, 50), 9)):
    stream = latent_stream.LatentStream(
      model, params, batch_size=8, pairs_batch=pairs_batch, reach=reach, mesh=mesh_lib.make()
    )
    for _ in range(2):  # finish starts it anew
      found, begin = {}, 0
      for cut in cuts:
        named = [(t - reach, t, t) for t in range(begin, cut) if t >= reach and t % every == 0]
        found |= dict(stream.add(frames[begin:cut], named))
        begin = cut
      found |= dict(stream.finish())
      seconds = [t for t in range(reach, 50) if t % every == 0]
      assert sorted(found) == seconds
      expected = whole(frames[np.array(seconds) - reach], frames[seconds])
      np.testing.assert_allclose(
        np.stack([found[t] for t in seconds]), expected, rtol=1e-4, atol=1e-5
      )
    # as few batches of pairs as there can be
    assert stream.encoded == 2 * 56 and stream.paired == 2 * 32
