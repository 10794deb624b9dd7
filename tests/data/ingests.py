"""Ingest with the fields of `StorageOptions` as keyword arguments."""

import dataclasses

from como_jax.data import ingest, ingest_settings

QUICK = {"workers": 0, "progress": False}


def _storage(settings) -> ingest_settings.StorageOptions:
  """Takes the fields of `StorageOptions` out of keyword arguments."""
  fields = [field.name for field in dataclasses.fields(ingest_settings.StorageOptions)]
  return ingest_settings.StorageOptions(
    **{key: settings.pop(key) for key in fields if key in settings}
  )


def run(source, output, **settings) -> ingest.Summary:
  """`ingest.run` with the fields of `StorageOptions` as keyword arguments."""
  return ingest.run(source, output, _storage(settings), **settings)


def ensure_shards(path, **settings) -> str:
  """`ingest.ensure_shards` with the fields of `StorageOptions` as keyword arguments."""
  return ingest.ensure_shards(path, _storage(settings), **settings)
