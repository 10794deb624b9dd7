"""Converts data of any supported format to our shards."""

from como_jax import config as config_lib
from como_jax.assembly import data_folders
from como_jax.data import ingest, ingest_manifest, ingest_settings, sources


def run(command: config_lib.CommandLine) -> int:
  """Writes the shards into `config.output` (default: the workdir).

  An unfinished run is resumed, and shared with other processes that are at it. For a finished run,
  only the summary is printed.
  """
  config = command.config
  output = config.output or str(command.workdir)
  options = data_folders.source_options(config.source)
  source = sources.open_source(
    data_folders.resolve(config.source.path), format=config.source.format, options=options
  )
  storage = ingest_settings.StorageOptions(
    cameras=tuple(config.source.cameras), **config.shards.to_dict()
  )
  summary = ingest.write(
    source,
    output,
    storage.settings(source, options),
    ingest.Work(
      config.workers,
      lease_seconds=config.lease_seconds,
      runner=config.runner,
      runner_flags=tuple(config.runner_flags),
    ),
  )
  where = command.address if command.address and not config.output else summary.path
  print(
    f"{summary.episodes} episodes, {summary.clips} clips, {summary.frames} frames in "
    f"{summary.seconds:.1f} s -> {where}"
  )
  for line in ingest_manifest.remarks(summary.manifest):
    print(line)
  return 0
