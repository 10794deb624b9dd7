"""Lines of JSON that are cut, wrong or not there."""

import os
import pathlib

import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from como_jax import errors
from como_jax.data.sources import lerobot_json
from tests.data import lerobot_makers as makers
from tests.data.lerobot_makers import TOP, Folder, check, opened, refused, without


def test_a_line_that_is_cut(tmp_path):
  path = Folder(lengths=(6, 8, 7)).write(tmp_path / "set")
  lines = pathlib.Path(f"{path}/meta/episodes.jsonl").read_text()
  pathlib.Path(f"{path}/meta/episodes.jsonl").write_text(lines[:-15])
  source = opened(path)
  assert source.names == ("episode_000000", "episode_000001")
  check(source[1], 1, range(8))
  assert source.skipped == [
    {"name": "meta/episodes.jsonl", "reason": "line 3, the last one, is cut and left out"},
    {
      "name": "data/chunk-000/episode_000002.parquet",
      "reason": "no episode of meta/episodes uses it",
    },
    {
      "name": f"videos/chunk-000/{TOP}/episode_000002.mp4",
      "reason": "no episode of meta/episodes uses it",
    },
  ]
  first, second, third = lines.splitlines()
  pathlib.Path(f"{path}/meta/episodes.jsonl").write_text(f"{first}\n\n{second[:-9]}\n{third}\n")
  with pytest.raises(errors.UserError, match="episodes.jsonl: line 3 is not JSON"):
    opened(path)
  pathlib.Path(f"{path}/meta/episodes.jsonl").write_bytes(f"{first}\n[1]\n".encode() + b"{caf\xe9}")
  with pytest.raises(errors.UserError, match="episodes.jsonl: line 2 holds a JSON list"):
    opened(path)
  pathlib.Path(f"{path}/meta/episodes.jsonl").write_text(lines)
  with open(f"{path}/meta/tasks.jsonl", "a") as file:
    file.write('{"task_index": 1, "task": "another"}\n')
  with pytest.raises(
    errors.UserError, match="task_index 1 is listed twice, as 'close the drawer' and as 'another'"
  ):
    opened(path)
  pathlib.Path(f"{path}/meta/tasks.jsonl").write_text('{"task_index": 0}')
  with pytest.raises(
    errors.UserError, match="task_index = 0, task = None, expected a whole number and text"
  ):
    opened(path)
  os.remove(f"{path}/meta/tasks.jsonl")
  makers.write_table(f"{path}/meta/tasks.parquet", pa.table({"task_index": [0, 1]}))
  with pytest.raises(errors.UserError, match="tasks.parquet has no column of instructions"):
    opened(path)
  os.remove(f"{path}/meta/tasks.parquet")
  assert opened(path)[1].task == "close the drawer"  # of the episode's own list
  os.remove(f"{path}/meta/episodes.jsonl")
  with pytest.raises(errors.UserError, match="episodes.jsonl cannot be read"):
    opened(path)


def test_a_byte_order_mark_is_no_damage(tmp_path):
  # one line: what is wrong with the last one is taken as a cut
  one = Folder(lengths=(6,), rows=without("task_index"))
  for folder, lengths in ((one, (6,)), (Folder(), (6, 8))):
    path = folder.write(tmp_path / str(len(lengths)))
    for name in ("info.json", "episodes.jsonl", "tasks.jsonl"):
      content = pathlib.Path(f"{path}/meta/{name}").read_bytes()
      pathlib.Path(f"{path}/meta/{name}").write_bytes(b"\xef\xbb\xbf" + content)
    source = opened(path)
    assert source.skipped == []
    for i, length in enumerate(lengths):
      check(source[i], i, range(length))
      assert source[i].task == makers.TASKS[i]


def test_what_git_leaves_in_the_place_of_large_files(tmp_path):
  pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
  for name in (
    "data/chunk-000/episode_000001.parquet",
    f"videos/chunk-000/{TOP}/episode_000001.mp4",
  ):
    path = Folder().write(tmp_path / os.path.basename(name))
    pathlib.Path(f"{path}/{name}").write_text(pointer)
    refused(opened(path), 1, f"{os.path.basename(name)}.* is a Git LFS pointer.*git lfs pull")
    check(opened(path)[0], 0, range(6))
  for name in ("info.json", "episodes.jsonl", "tasks.parquet"):
    path = Folder(version="v3.0" if name.endswith("parquet") else "v2.1").write(tmp_path / name)
    pathlib.Path(f"{path}/meta/{name}").write_text(pointer)
    with pytest.raises(errors.UserError, match=f"{name} is a Git LFS pointer"):
      opened(path)


def test_a_last_line_that_is_whole_and_wrong(tmp_path):
  """Only a line that was cut is left out: it does not end as an object does."""
  path = Folder().write(tmp_path / "set")
  good = pathlib.Path(f"{path}/meta/tasks.jsonl").read_bytes()
  for line, reason in (
    (b'{"task_index": 1, "task": "caf\xe9"}', "'utf-8' codec can't decode byte 0xe9"),
    (b'{"task_index": 1, "task": a}\n', r"Expecting value, column 27\)"),
  ):
    pathlib.Path(f"{path}/meta/tasks.jsonl").write_bytes(good.splitlines(keepends=True)[0] + line)
    with pytest.raises(errors.UserError, match=f"tasks.jsonl: line 2 is not JSON .{reason}"):
      opened(path)


def test_tables_whose_text_is_not_utf8(tmp_path):
  latin = pa.array([b"caf\xe9", b"b"]).view(pa.string())
  path = Folder(version="v3.0").write(tmp_path / "set")
  makers.write_table(f"{path}/meta/tasks.parquet", pa.table({"task_index": [0, 1], "task": latin}))
  with pytest.raises(errors.UserError, match="tasks.parquet holds text that is not UTF-8"):
    opened(path)
  file = f"{path}/meta/episodes/chunk-000/file-000.parquet"
  pq.write_table(pq.read_table(file).append_column("group", latin), file)
  os.remove(f"{path}/meta/tasks.parquet")
  with pytest.raises(errors.UserError, match="file-000.parquet holds text that is not UTF-8"):
    opened(path)


def test_lines(tmp_path):
  path = tmp_path / "lines.jsonl"
  for text, rows, remark in (
    ('{"a": 1}\n\n{"a": 2}\n', [{"a": 1}, {"a": 2}], ""),
    ('{"a": 1}\n\n{"a"\n', [{"a": 1}], "line 3, the last one, is cut and left out"),
    ("", [], ""),
  ):
    path.write_text(text)
    assert lerobot_json.read_json_lines(str(path)) == (rows, remark)
