"""What ingest needs of every source."""

import pickle

from como_jax.data import sources
from como_jax.data.sources import protocol
from tests.data import makers


def test_every_source_has_what_ingest_needs(uneven_path, tmp_path):
  for path in (uneven_path, makers.video_folder(tmp_path / "videos")):
    source = sources.open_source(path)
    needed = {*protocol.Source.__annotations__, "fingerprint"}
    assert needed == {name for name in needed if hasattr(source, name)}
    assert {"format", "description", "path"} <= set(source.info)
    assert len(source) == len(source.names) and source[0].episode == source.names[0]
    assert len(pickle.dumps(source)) < 10_000, "it goes to every worker process"
