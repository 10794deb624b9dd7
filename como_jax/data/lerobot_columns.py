"""Copies a LeRobot v3.0 data set and adds a label set: columns, features and statistics.

Legend: T rows of an episode, Z numbers of one latent motion.
"""

import json
import os
import pathlib
import re
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from como_jax import errors
from como_jax.data import labels

PREFIX = "latent_motion."
# episode index -> camera -> labels of its rows. Rows after the last label have none.
Find = Callable[[int], labels.Motions]


def copy(
  base: pathlib.Path,
  part: pathlib.Path,
  find: Find,
  *,
  cameras: list[str],
  size: int,
  groups: Mapping[int, str],
) -> dict[str, int]:
  """Copies a v3.0 data set and adds the labels. Videos are hard links where possible.

  Args:
    base: the data set.
    part: folder to make.
    find: returns the labels of an episode.
    cameras: names of the labeled cameras.
    size: Z.
    groups: episode index -> group (`episode.RawEpisode`). They become a column of the episodes'
      table, if it has none.

  Returns:
    Counts: {"episodes", "rows", "valid"}.

  Raises:
    errors.UserError: an episode has labels for frames that are not rows of it.
  """
  counts = {"episodes": 0, "rows": 0, "valid": 0}
  before = base / "meta" / "stats.json"
  stats = json.loads(before.read_text(encoding="utf-8-sig")) if before.is_file() else {}
  quantiles = sorted(
    {key for values in stats.values() for key in values if re.fullmatch(r"q\d\d", key)}
  )
  lengths: dict[int, int] = {}
  for file in sorted(path for path in base.rglob("*") if path.is_file()):
    name = file.relative_to(base)
    if any(folder.startswith(".") for folder in name.parts):
      continue
    target = part / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if name.parts[0] == "data" and name.suffix == ".parquet":
      _add_columns(file, target, find, lengths, cameras=cameras, size=size)
    elif name.parts[0] in ("videos", "images"):
      _link(file, target)
    else:
      shutil.copyfile(file, target)
  for episode, length in lengths.items():
    if longest := max(
      (len(motion.valid) for motion in find(episode).values() if len(motion.valid) > length),
      default=0,
    ):
      raise errors.UserError(
        f"{base}: episode {episode} has {length} rows, its labels reach to frame {longest - 1}: "
        "extract the labels of this data set anew"
      )
  statistics = {
    episode: _episode_statistics(find(episode), length, cameras, size, quantiles)
    for episode, length in sorted(lengths.items())
  }
  for file in sorted((part / "meta" / "episodes").rglob("*.parquet")):
    _extend_episodes(file, statistics, groups)
  info = read_info(base)
  for camera in cameras:
    key = PREFIX + camera
    info["features"][key] = {"dtype": "float32", "shape": [size], "names": None}
    info["features"][f"{key}.valid"] = {"dtype": "bool", "shape": [1], "names": None}
    info["features"][f"{key}.difference"] = {"dtype": "float32", "shape": [1], "names": None}
    counts["valid"] += sum(int(features[key]["count"][0]) for features in statistics.values())
  for key in next(iter(statistics.values()), {}):
    counted = [features[key] for features in statistics.values() if features[key]["count"][0]]
    stats[key] = (
      _plain(_merge(counted)) if counted else _plain(next(iter(statistics.values()))[key])
    )
  (part / "meta" / "info.json").write_text(json.dumps(info, indent=2) + "\n")
  (part / "meta" / "stats.json").write_text(json.dumps(stats, indent=1) + "\n")
  return counts | {"episodes": len(lengths), "rows": sum(lengths.values())}


def read_info(path) -> dict[str, Any]:
  """Reads the meta/info.json of a data set."""
  return json.loads(pathlib.Path(path, "meta", "info.json").read_text(encoding="utf-8-sig"))


def _link(file: pathlib.Path, to: pathlib.Path) -> None:
  try:
    os.link(file.resolve(), to)
  except OSError:  # another file system, or a file system without links
    shutil.copyfile(file, to)


def _add_columns(
  file: pathlib.Path,
  to: pathlib.Path,
  find: Find,
  lengths: dict[int, int],
  *,
  cameras: list[str],
  size: int,
) -> None:
  """Copies one data file and adds the columns, one row group at a time.

  Args:
    file: the data file.
    to: the new file.
    find: returns the labels of an episode.
    lengths: number of rows of each episode so far; it is updated. Row t of an episode is its frame
      t.
    cameras: names of the labeled cameras.
    size: Z.
  """
  source = parquet.ParquetFile(file)
  schema = source.schema_arrow
  for camera in cameras:
    key = PREFIX + camera
    for name, kind in (
      (key, pa.list_(pa.float32(), size)),
      (f"{key}.valid", pa.bool_()),
      (f"{key}.difference", pa.float32()),
    ):
      schema = schema.append(pa.field(name, kind))
  schema = schema.with_metadata(_metadata(schema.metadata, cameras, size))
  compression = (
    source.metadata.row_group(0).column(0).compression if source.num_row_groups else "snappy"
  )
  with parquet.ParquetWriter(
    to, schema, compression="none" if compression == "UNCOMPRESSED" else compression.lower()
  ) as writer:
    for group in range(source.num_row_groups):
      table = source.read_row_group(group)
      episodes = table.column("episode_index").to_numpy()
      values = {camera: _no_labels(len(episodes), size) for camera in cameras}
      for episode in dict.fromkeys(int(index) for index in episodes):
        rows = np.flatnonzero(episodes == episode)
        start = lengths.get(episode, 0)
        lengths[episode] = start + len(rows)
        for camera, motion in find(episode).items():
          # Rows after the last label have none: the data left these frames out.
          labeled = rows[: max(0, len(motion.valid) - start)]
          for column, array in zip(values[camera], motion, strict=True):
            column[labeled] = array[start : start + len(labeled)]
      columns = list(table.columns)
      for motion in values.values():
        columns += [
          pa.FixedSizeListArray.from_arrays(pa.array(motion.z.reshape(-1)), size),
          pa.array(motion.valid),
          pa.array(motion.difference),
        ]
      writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _metadata(
  metadata: dict[bytes, bytes] | None, cameras: list[str], size: int
) -> dict[bytes, bytes] | None:
  """The metadata of a schema with the new columns.

  The library "datasets" of Hugging Face stores a list of features there.
  """
  if not metadata or b"huggingface" not in metadata:
    return metadata
  content = json.loads(metadata[b"huggingface"])
  features = content.get("info", {}).get("features", {})
  kind = next(
    (
      feature["_type"]
      for feature in features.values()
      if isinstance(feature, dict) and "length" in feature
    ),
    "Sequence",
  )
  for camera in cameras:
    features[PREFIX + camera] = {
      "feature": {"dtype": "float32", "_type": "Value"},
      "length": size,
      "_type": kind,
    }
    features[f"{PREFIX}{camera}.valid"] = {"dtype": "bool", "_type": "Value"}
    features[f"{PREFIX}{camera}.difference"] = {"dtype": "float32", "_type": "Value"}
  return {**metadata, b"huggingface": json.dumps(content).encode()}


def _no_labels(length: int, size: int) -> labels.Motion:
  """The arrays of T frames without labels."""
  return labels.Motion(
    np.zeros((length, size), np.float32), np.zeros(length, bool), np.zeros(length, np.float32)
  )


def _episode_statistics(
  motions: labels.Motions, length: int, cameras: list[str], size: int, quantiles: list[str]
) -> dict[str, dict]:
  """Statistics of the new features in one episode: feature -> statistics.

  The statistics of z and of the difference are over its valid rows.

  Args:
    motions: labels of the episode.
    length: T.
    cameras: names of the labeled cameras.
    size: Z.
    quantiles: names of the quantiles, such as "q01".
  """
  statistics = {}
  for camera in cameras:
    key, motion = PREFIX + camera, motions.get(camera, _no_labels(length, size))
    valid = np.concatenate([motion.valid, np.zeros(max(0, length - len(motion.valid)), bool)])
    for name, rows in ((key, motion.z), (f"{key}.difference", motion.difference[:, None])):
      counted = rows[motion.valid] if motion.valid.any() else np.zeros((1, rows.shape[1]))
      statistics[name] = _statistics(counted, quantiles) | {
        "count": np.array([int(motion.valid.sum())])
      }
    statistics[f"{key}.valid"] = _statistics(valid[:, None], quantiles)
  return statistics


def _statistics(rows: np.ndarray, quantiles: list[str]) -> dict[str, np.ndarray]:
  """Statistics of rows [n, D]: min, max, mean, std [D], count [1], and the quantiles [D].

  Args:
    rows: [n, D].
    quantiles: names of the quantiles that the data set has, such as "q01".
  """
  rows = np.asarray(rows, np.float64)
  values = {
    "min": rows.min(0),
    "max": rows.max(0),
    "mean": rows.mean(0),
    "std": rows.std(0),
    "count": np.array([len(rows)]),
  }
  return values | {key: np.quantile(rows, int(key[1:]) / 100, axis=0) for key in quantiles}


def _merge(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Merges statistics of episodes; quantiles are averaged by count, as in LeRobot."""
  counts = np.array([part["count"][0] for part in parts], np.float64)
  weights = (counts / counts.sum())[:, None]
  mean = (weights * np.stack([part["mean"] for part in parts])).sum(0)
  square = (
    weights * np.stack([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
  ).sum(0)
  merged = {
    "min": np.min([part["min"] for part in parts], 0),
    "max": np.max([part["max"] for part in parts], 0),
    "mean": mean,
    "std": np.sqrt(square),
    "count": np.array([int(counts.sum())]),
  }
  return merged | {
    key: (weights * np.stack([part[key] for part in parts])).sum(0)
    for key in parts[0]
    if key not in merged
  }


def _plain(values: Mapping[str, np.ndarray]) -> dict[str, list]:
  return {key: value.tolist() for key, value in values.items()}


def _extend_episodes(
  file: pathlib.Path,
  statistics: Mapping[int, Mapping[str, Mapping[str, np.ndarray]]],
  groups: Mapping[int, str],
) -> None:
  """Adds columns to a file of the table of episodes.

  They are the statistics of the new features, if the table has statistics, and the groups, if it
  has none.

  Args:
    file: of the table.
    statistics: episode index -> feature -> statistics.
    groups: episode index -> group.
  """
  table = parquet.ParquetFile(file).read()
  episodes = table.column("episode_index").to_pylist()
  if any(groups.values()) and not {"group", "motion"} & set(table.column_names):
    table = table.append_column(
      "group", pa.array([groups.get(episode, "") for episode in episodes], pa.string())
    )
  if any(name.startswith("stats/") for name in table.column_names):
    for feature, values in next(iter(statistics.values()), {}).items():
      for key in values:
        column = [
          statistics[episode][feature][key].tolist() if episode in statistics else None
          for episode in episodes
        ]
        table = table.append_column(
          f"stats/{feature}/{key}",
          pa.array(column, pa.list_(pa.int64() if key == "count" else pa.float64())),
        )
  parquet.write_table(table, file, compression="zstd")
