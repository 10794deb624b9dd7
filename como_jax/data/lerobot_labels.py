"""A LeRobot v3.0 data set with labels as columns: "latent_motion.<camera>" float32 [Z] and "latent_motion.<camera>.valid" bool.

A v3.0 source is copied, its videos linked where the file system can (they do not change); anything else (videos, v2 data sets, our
shards) is written anew from the shards, at their size. Statistics of z count valid rows only.

Legend: T rows of an episode, Z numbers of one latent motion.
"""

import functools
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
from como_jax.data import labels, lerobot_writer, sources, video
from como_jax.data.sources import shards

PREFIX = "latent_motion."
NOTE = "meta/latent_motion.json"  # where the labels are from; other programs ignore it
Find = Callable[[int], labels.Motions]  # episode index -> camera -> (z [T, Z], valid [T])


def check(output: str, *, source: str, shards_path: str, resume: bool) -> None:
  """Refuses early what `export` would refuse.

  Args:
    output: folder to write; may exist only when resuming.
    source: the data that was labelled.
    shards_path: its shards.
    resume: whether an export may be there already.

  Raises:
    errors.UserError: the folder exists, the source has such columns, or clips that no LeRobot data set can hold together.
  """
  if os.path.exists(output) and not (resume and os.path.isfile(os.path.join(output, NOTE))):
    raise errors.UserError(f"config.lerobot: {output} exists already: choose another path or delete it (nothing is overwritten)")
  if not is_v3(source):
    _one_rate(shards_path)
  elif there := [name for name in _read_info(source)["features"] if name.startswith(PREFIX)]:
    raise errors.UserError(f"config.lerobot: {source} has the column {there[0]!r} already: label the data set that it was made from")


def is_v3(source: str) -> bool:
  """Whether a data path is a LeRobot v3.x data set."""
  if sources.detect(source) != "lerobot":
    return False
  return bool(re.match(r"v?3\.", str(_read_info(source).get("codebase_version", ""))))


def _read_info(path) -> dict[str, Any]:
  return json.loads(pathlib.Path(path, "meta", "info.json").read_text())


def _one_rate(shards_path: str) -> float:
  rates = sorted({float(fps) for fps in shards.read_table(shards_path).fps})
  if len(rates) > 1:
    listed = ", ".join(f"{rate:g}" for rate in rates)
    raise errors.UserError(f"config.lerobot: the clips have {listed} frames a second, a LeRobot data set has one rate: "
                           "export the folders of each rate by themselves, or leave config.lerobot empty")
  return rates[0]


def export(labels_path: str, output: str, *, source: str, shards_path: str) -> str:
  """Writes the data set, whole or not at all; one that is there already with these labels is kept. Returns a line that says what
  there is.

  Args:
    labels_path: a finished label set.
    output, source, shards_path: as for `check`.

  Raises:
    errors.UserError: the folder holds other labels, or data and labels do not fit.
  """
  motions, table = labels.Labels(labels_path), shards.read_table(shards_path)
  note = {"labels": os.path.abspath(labels_path), "fingerprint": labels.fingerprint(labels_path),
          **{key: motions.manifest[key] for key in ("size", "offset_seconds", "cameras", "model")}}
  target = pathlib.Path(output)
  if target.exists():
    before = json.loads((target / NOTE).read_text()) if (target / NOTE).is_file() else {}
    if before.get("fingerprint") != note["fingerprint"]:
      raise errors.UserError(f"config.lerobot: {output} holds other labels ({before.get('labels')}): choose another path or delete it")
    return f"LeRobot data set with these labels: {output} is there already"
  rows: dict[str, list[int]] = {}
  for row in np.lexsort((table.record, table.shard)):
    rows.setdefault(str(table.episode[row]), []).append(int(row))

  @functools.lru_cache(maxsize=4)  # the rows of a file come episode by episode
  def of(name: str) -> labels.Motions:
    return motions.episode(table, rows[name]) if name in rows else {}

  part, fresh = (target.with_name(f".{target.name}.{kind}") for kind in ("part", "fresh"))
  skipped: list[str] = []
  try:
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(fresh, ignore_errors=True)
    if is_v3(source):
      base, find = pathlib.Path(source), lambda number: of(f"episode_{number:06d}")
    else:
      names, skipped = _write_anew(fresh, shards_path, table, rows)
      base, find = fresh, lambda number: of(names[number])
    counts = _copy(base, part, find, cameras=note["cameras"], size=motions.size)
    (part / NOTE).write_text(json.dumps(note, indent=2) + "\n")
    os.replace(part, target)
  finally:
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(fresh, ignore_errors=True)
  lost = f", {len(skipped)} damaged episodes left out ({', '.join(skipped[:3])})" if skipped else ""
  return f"LeRobot data set with labels: {counts['episodes']} episodes, {counts['rows']} rows, {counts['valid']} motions{lost} -> {output}"


def _write_anew(path: pathlib.Path, shards_path: str, table: shards.Table, rows: Mapping[str, list[int]]) -> tuple[list[str], list[str]]:
  """A data set of all episodes of the shards: (names of its episodes in order, names of those that cannot be read)."""
  manifest, reader = shards.read_manifest(shards_path), shards.Reader(shards_path)
  first = next(iter(rows.values()))[0]
  sizes = {name: (frames.height, frames.width) for name, frames in reader.clip(table.shard[first], table.record[first]).frames.items()}
  names = {}
  for key in ("state", "action"):
    size = manifest[key]["size"]
    names[key] = (manifest[key]["names"] or [f"{key}_{i}" for i in range(size)]) if isinstance(size, int) else []
  written, skipped = [], []
  with lerobot_writer.Writer(path, _one_rate(shards_path), cameras=sizes, state_names=names["state"], action_names=names["action"],
                             robot_type="unknown") as writer:
    for episode, mine in rows.items():
      try:
        frames, arrays, task = _read_episode(reader, table, labels.in_order(table, mine))
      except video.Unreadable:
        skipped.append(episode)
        continue
      vectors = {key: arrays[key] if names[key] else None for key in names}
      writer.add_episode(task, frames, metadata={"episode": episode}, **vectors)
      written.append(episode)
    writer.finalise()
  return written, skipped


def _read_episode(reader: shards.Reader, table: shards.Table, rows: list[int]):
  """(camera -> frames uint8 [T, H, W, 3], name -> array [T, ...], task) of one episode, its clips joined."""
  frames: dict[str, list] = {}
  arrays: dict[str, list] = {}
  end = int(table.start[rows[0]])
  for row in rows:
    clip = reader.clip(table.shard[row], table.record[row])
    new = range(end - clip.start, len(clip))
    end = clip.start + len(clip)
    for name, coded in clip.frames.items():
      frames.setdefault(name, []).append(coded.decode(new))
    for name, array in clip.arrays.items():
      arrays.setdefault(name, []).append(array[new.start:])
  return ({name: np.concatenate(parts) for name, parts in frames.items()}, {name: np.concatenate(parts) for name, parts in arrays.items()},
          clip.task)


def _copy(base: pathlib.Path, part: pathlib.Path, find: Find, *, cameras: list[str], size: int) -> dict[str, int]:
  """Copies a v3 data set, adding the columns, their features and their statistics; returns counts."""
  counts = {"episodes": 0, "rows": 0, "valid": 0}
  before = base / "meta" / "stats.json"
  stats = json.loads(before.read_text()) if before.is_file() else {}
  quantiles = sorted({key for values in stats.values() for key in values if re.fullmatch(r"q\d\d", key)})
  lengths: dict[int, int] = {}
  for file in sorted(path for path in base.rglob("*") if path.is_file()):
    name = file.relative_to(base)
    if any(piece.startswith(".") for piece in name.parts):
      continue
    to = part / name
    to.parent.mkdir(parents=True, exist_ok=True)
    if name.parts[0] == "data" and name.suffix == ".parquet":
      _add_columns(file, to, find, lengths, cameras=cameras, size=size)
    elif name.parts[0] in ("videos", "images"):
      _link(file, to)
    else:
      shutil.copyfile(file, to)
  found = {number: _episode_statistics(find(number), length, cameras, size, quantiles) for number, length in sorted(lengths.items())}
  for file in sorted((part / "meta" / "episodes").rglob("*.parquet")):
    _add_statistics(file, found)
  info = _read_info(base)
  for camera in cameras:
    info["features"][PREFIX + camera] = {"dtype": "float32", "shape": [size], "names": None}
    info["features"][f"{PREFIX}{camera}.valid"] = {"dtype": "bool", "shape": [1], "names": None}
    key = PREFIX + camera
    labelled = [one[key] for one in found.values() if one[key]["count"][0]]
    stats[key] = _plain(_merge(labelled)) if labelled else _plain(next(iter(found.values()))[key])
    stats[f"{key}.valid"] = _plain(_merge([one[f"{key}.valid"] for one in found.values()]))
    counts["valid"] += sum(int(one["count"][0]) for one in labelled)
  (part / "meta" / "info.json").write_text(json.dumps(info, indent=2) + "\n")
  (part / "meta" / "stats.json").write_text(json.dumps(stats, indent=1) + "\n")
  return counts | {"episodes": len(lengths), "rows": sum(lengths.values())}


def _link(file: pathlib.Path, to: pathlib.Path) -> None:
  try:
    os.link(file.resolve(), to)
  except OSError:  # another file system, or one without links
    shutil.copyfile(file, to)


def _add_columns(file: pathlib.Path, to: pathlib.Path, find: Find, lengths: dict[int, int], *, cameras: list[str], size: int) -> None:
  """One data file, a row group at a time. `lengths` counts the rows of each episode: row t of an episode is its frame t."""
  source = parquet.ParquetFile(file)
  schema = source.schema_arrow
  for camera in cameras:
    schema = schema.append(pa.field(PREFIX + camera, pa.list_(pa.float32(), size))).append(pa.field(f"{PREFIX}{camera}.valid", pa.bool_()))
  schema = schema.with_metadata(_metadata(schema.metadata, cameras, size))
  compression = source.metadata.row_group(0).column(0).compression if source.num_row_groups else "snappy"
  with parquet.ParquetWriter(to, schema, compression="none" if compression == "UNCOMPRESSED" else compression.lower()) as writer:
    for group in range(source.num_row_groups):
      table = source.read_row_group(group)
      numbers = table.column("episode_index").to_numpy()
      values = {camera: (np.zeros((len(numbers), size), np.float32), np.zeros(len(numbers), bool)) for camera in cameras}
      for number in dict.fromkeys(int(n) for n in numbers):
        here = np.flatnonzero(numbers == number)
        begin = lengths.get(number, 0)
        lengths[number] = begin + len(here)
        for camera, (z, valid) in find(number).items():
          if len(z) < lengths[number]:
            raise errors.UserError(f"{file}: episode {number} has more than {lengths[number] - 1} rows, its labels end at {len(z)}: "
                                   "extract the labels of this data set anew")
          values[camera][0][here], values[camera][1][here] = z[begin:begin + len(here)], valid[begin:begin + len(here)]
      columns = list(table.columns)
      for z, valid in values.values():
        columns += [pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), size), pa.array(valid)]
      writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _metadata(metadata: dict[bytes, bytes] | None, cameras: list[str], size: int) -> dict[bytes, bytes] | None:
  """The schema's metadata with the columns added to the features that Hugging Face's datasets keeps there."""
  if not metadata or b"huggingface" not in metadata:
    return metadata
  held = json.loads(metadata[b"huggingface"])
  features = held.get("info", {}).get("features", {})
  kind = next((one["_type"] for one in features.values() if isinstance(one, dict) and "length" in one), "Sequence")
  for camera in cameras:
    features[PREFIX + camera] = {"feature": {"dtype": "float32", "_type": "Value"}, "length": size, "_type": kind}
    features[f"{PREFIX}{camera}.valid"] = {"dtype": "bool", "_type": "Value"}
  return {**metadata, b"huggingface": json.dumps(held).encode()}


def _episode_statistics(motions: labels.Motions, length: int, cameras: list[str], size: int, quantiles: list[str]) -> dict[str, dict]:
  """Feature -> statistics of one episode, those of z over its valid rows."""
  found = {}
  for camera in cameras:
    z, valid = motions.get(camera, (np.zeros((length, size), np.float32), np.zeros(length, bool)))
    found[PREFIX + camera] = _statistics(z[valid], quantiles) if valid.any() else _statistics(z[:1], quantiles) | {"count": np.array([0])}
    found[f"{PREFIX}{camera}.valid"] = _statistics(valid[:length, None], quantiles)
  return found


def _statistics(rows: np.ndarray, quantiles: list[str]) -> dict[str, np.ndarray]:
  """Of [n, D]: min, max, mean, std [D], count [1], and quantiles q01 ... q99 where the data set has them."""
  rows = np.asarray(rows, np.float64)
  found = {"min": rows.min(0), "max": rows.max(0), "mean": rows.mean(0), "std": rows.std(0), "count": np.array([len(rows)])}
  return found | {key: np.quantile(rows, int(key[1:]) / 100, axis=0) for key in quantiles}


def _merge(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Statistics of the whole; quantiles are averaged by count, as LeRobot does."""
  counts = np.array([part["count"][0] for part in parts], np.float64)
  weights = (counts / counts.sum())[:, None]
  mean = (weights * np.stack([part["mean"] for part in parts])).sum(0)
  square = (weights * np.stack([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])).sum(0)
  found = {"min": np.min([part["min"] for part in parts], 0), "max": np.max([part["max"] for part in parts], 0), "mean": mean,
           "std": np.sqrt(square), "count": np.array([int(counts.sum())])}
  return found | {key: (weights * np.stack([part[key] for part in parts])).sum(0) for key in parts[0] if key not in found}


def _plain(values: Mapping[str, np.ndarray]) -> dict[str, list]:
  return {key: value.tolist() for key, value in values.items()}


def _add_statistics(file: pathlib.Path, found: Mapping[int, Mapping[str, Mapping[str, np.ndarray]]]) -> None:
  """Statistics of the new columns in the table of episodes, if it has any."""
  table = parquet.ParquetFile(file).read()
  if not any(name.startswith("stats/") for name in table.column_names):
    return
  numbers = table.column("episode_index").to_pylist()
  for feature, values in next(iter(found.values())).items():
    for key in values:
      column = [found[number][feature][key].tolist() if number in found else None for number in numbers]
      table = table.append_column(f"stats/{feature}/{key}", pa.array(column, pa.list_(pa.int64() if key == "count" else pa.float64())))
  parquet.write_table(table, file, compression="zstd")
