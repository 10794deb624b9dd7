"""A folder of video files of any kind as a source. Every file is an episode with one camera.

The folder is searched recursively.
"""

import functools
import json
import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence

from como_jax import errors
from como_jax.data import episode, shards, video
from como_jax.data.sources import markers, video_groups
from como_jax.data.sources.options import SourceOptions
from como_jax.data.sources.protocol import Source

EXTENSIONS = (
  ".mp4",
  ".webm",
  ".mkv",
  ".mov",
  ".avi",
  ".m4v",
  ".mpg",
  ".mpeg",
  ".mpe",
  ".wmv",
  ".flv",
  ".f4v",
  ".ts",
  ".mts",
  ".m2ts",
  ".ogv",
  ".3gp",
  ".3g2",
  ".asf",
  ".mxf",
  ".vob",
  ".qt",
  ".dv",
  ".gif",
  ".apng",
  ".ivf",
  ".y4m",
  ".nut",
  ".h264",
  ".264",
  ".hevc",
  ".265",
  ".h265",
  ".m2v",
  ".m1v",
  ".mjpeg",
  ".mjpg",
  ".obu",
)
CAMERA = "camera"
ANNOTATIONS = "lang_annotations.json"  # {"file.mp4": "instruction"} beside the files
_KINDS = {
  "a picture, not a video": (
    ".jpg .jpeg .png .bmp .tif .tiff .webp .heic .exr .ppm .pgm .svg .npy .npz"
  ),
  "sound, not a video": ".wav .mp3 .aac .m4a .flac .ogg .opus .wma",
  "text or a table, not a video": (
    ".txt .md .json .jsonl .csv .tsv .yaml .yml .xml .html .parquet .srt .vtt .log .pdf"
  ),
  "an archive: unpack it": ".zip .tar .gz .tgz .bz2 .xz .7z .rar .zst",
  "an unfinished download": ".part .crdownload .download .partial .tmp .aria2",
  "a playlist, not a video": ".m3u .m3u8 .mpd .pls",
}
_REASONS = {extension: reason for reason, texts in _KINDS.items() for extension in texts.split()}
_LEVELS = 5  # parent folders that are searched for an enclosing data set


def find(root: str, *, limit: int | None = None) -> list[str]:
  """Relative paths of the video files below a folder, "/"-separated; stops at `limit` files."""
  paths, scan = [], _scan(root, [])
  for name in scan:
    paths.append(name)
    if limit and len(paths) >= limit:
      break
  return sorted(paths, key=os.fsencode)


def find_nested(root: str) -> list[tuple[str, str]]:
  """Finds data sets below a folder: (relative path, format) of each.

  Their files are not videos of the folder. The folder itself is not checked.
  """
  skipped: list[dict[str, str]] = []
  for _ in _scan(root, skipped):
    pass
  return [(item["name"], item["format"]) for item in skipped if "format" in item]


def enclosing(path: str) -> str | None:
  """The LeRobot data set that a folder is a part of (its `videos/`, for example), else None."""
  path = os.path.realpath(path)
  for _ in range(_LEVELS):
    path = os.path.dirname(path)
    if os.path.isfile(os.path.join(path, markers.LEROBOT)):
      return path
  return None


def summary(skipped: Sequence[dict[str, str]], *, max_names: int = 3) -> list[str]:
  """One line per reason: the number of files, and the names of the first ones.

  Args:
    skipped: {"name", "reason"} of each file that is not used.
    max_names: largest number of names in a line.
  """
  names = defaultdict(list)
  for item in skipped:
    names[item["reason"]].append(item["name"])
  lines = []
  for reason, files in names.items():
    rest = f" and {len(files) - max_names} more" if len(files) > max_names else ""
    lines.append(f"{len(files)} not used, {reason}: {', '.join(files[:max_names])}{rest}")
  return lines


def _scan(root: str, skipped: list[dict[str, str]]) -> Iterator[str]:
  """Yields the relative paths of video files.

  Each real folder is visited once, and each real file is yielded once. Links are followed last, so
  that a file is yielded under its own path. Files that are not yielded are added to `skipped` with
  the reason. Data sets below the folder are added too, also with their "format".
  """
  return _FolderScan(root, skipped).files()


class _FolderScan:
  """A scan of the folders of a source, see `_scan`."""

  def __init__(self, root: str, skipped: list[dict[str, str]]):
    self._root, self._skipped = root, skipped
    # Folders to visit; links, which are followed last.
    self._folders, self._links = [""], []
    # Real paths of the folders; device and inode, or real path, of the files, with their names.
    self._entered: set[str] = set()
    self._yielded: dict[tuple[int, int] | str, str] = {}

  def files(self) -> Iterator[str]:
    """Yields the relative paths of video files."""
    while self._folders or self._links:
      yield from (
        self._visit(self._folders.pop()) if self._folders else self._follow(self._links.pop(0))
      )

  def _skip(self, name: str, reason: str, **extra: str) -> None:
    self._skipped.append({"name": video.printable(name), "reason": reason} | extra)

  def _visit(self, folder: str) -> Iterator[str]:
    """Yields the files of a folder; its subfolders and links are visited later."""
    path = os.path.join(self._root, folder)
    if os.path.realpath(path) in self._entered:
      self._skip(folder, "a folder that was read already, by another path")
      return
    self._entered.add(os.path.realpath(path))
    format_name = _format(path) if folder else None
    if format_name:
      self._skip(folder, f"a {format_name} data set of its own: give its path", format=format_name)
      return
    try:
      with os.scandir(path) as entries:
        children = sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
      self._skip(folder or ".", f"the folder cannot be read ({error.strerror})")
      return
    subfolders = []
    for entry in children:
      name = f"{folder}/{entry.name}" if folder else entry.name
      if entry.is_symlink():
        self._links.append(name)
      elif entry.is_dir(follow_symlinks=False):
        if entry.name.startswith("."):
          self._skip(name, "a hidden folder")
        else:
          subfolders.append(name)
      elif self._accept(name, os.path.join(os.path.realpath(path), entry.name)):
        yield name
    self._folders.extend(reversed(subfolders))

  def _follow(self, name: str) -> Iterator[str]:
    """Yields the file that a link leads to; a folder is visited next."""
    path = os.path.realpath(os.path.join(self._root, name))
    if not os.path.exists(path):
      self._skip(name, "a link that leads nowhere")
    elif not os.path.isdir(path):
      if self._accept(name, path):
        yield name
    elif os.path.basename(name).startswith("."):
      self._skip(name, "a hidden folder")
    elif os.path.join(os.path.realpath(self._root), "").startswith(os.path.join(path, "")):
      self._skip(name, "a link to the folder that is read, or to one above it")
    else:
      self._folders.append(name)

  def _accept(self, name: str, path: str) -> bool:
    """Whether to yield a file; `path` is its real path. Otherwise it is added to `skipped`."""
    extension = os.path.splitext(name)[1].lower()
    if os.path.basename(name) == ANNOTATIONS and os.path.isfile(path):
      return False
    try:
      stat = os.stat(path)
    except OSError as error:
      self._skip(name, f"cannot be read ({error.strerror})")
      return False
    key = (stat.st_dev, stat.st_ino) if stat.st_nlink > 1 and stat.st_ino else path
    if not os.path.isfile(path):
      reason = "not a regular file"
    elif os.path.basename(name).startswith("."):
      reason = "a hidden file"
    elif extension not in EXTENSIONS:
      unknown = f"unknown extension {extension!r}" if extension else "no extension"
      reason = _REASONS.get(extension, unknown)
    elif key in self._yielded:
      reason = f"the same file as {self._yielded[key]}"
    else:
      self._yielded[key] = video.printable(name)
      return True
    self._skip(name, reason)
    return False


def _format(path: str) -> str | None:
  """The format of the data set in a folder, None when the folder is not a data set."""
  return next(
    (name for name in markers.found(path) if name != "shards" or _lists_shards(path)), None
  )


def _lists_shards(path: str) -> bool:
  """Whether a folder's manifest is one of shards: other programs write files of that name too."""
  try:
    with open(os.path.join(path, shards.MANIFEST), encoding="utf-8") as file:
      return "shards" in json.load(file)
  except (OSError, ValueError, TypeError):
    return False


class VideoFolder(Source):
  """A folder of videos as a source, with any codec and container that PyAV reads.

  `skipped` lists the other files in the folder. `info["description"]` says which files are treated
  as views of one recording (`options.group`, see `video_groups`). Names are printable text. The
  files are opened by the original bytes of their paths.
  """

  def __init__(self, path: str, options: SourceOptions | None = None):
    self._root, self._options = path, options or SourceOptions()
    self.skipped: list[dict[str, str]] = []
    self._files = tuple(sorted(_scan(path, self.skipped), key=os.fsencode))
    if not self._files:
      seen = "; ".join(summary(self.skipped))
      expected = f"expected one of {' '.join(EXTENSIONS)}" + (f" ({seen})" if seen else "")
      raise errors.UserError(f"no video file below {video.printable(path)}: {expected}")
    self.skipped = [{"name": item["name"], "reason": item["reason"]} for item in self.skipped]
    self.names = _unique(self._files)
    self._tasks = self._read_tasks()
    self._groups, grouping = video_groups.groups(self.names, self._options.group)
    self.cameras = (CAMERA,)
    description = f"folder of {len(self.names)} video files" + (f", {grouping}" if grouping else "")
    self.info = {
      "format": "video_folder",
      "description": description,
      "action_names": None,
      "state_names": None,
    }

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, i: int) -> episode.RawEpisode:
    notes: list[str] = []
    cameras = {
      CAMERA: functools.partial(video.read, self.path(i), notes=notes, options=self._options)
    }
    task = self._tasks.get(self.names[i], "")
    return episode.RawEpisode(
      self.names[i], task, cameras, {}, notes, self._groups[i], continuous=False
    )

  def path(self, i: int) -> str:
    """Path of a video file."""
    return os.path.join(self._root, self._files[i])

  def fingerprint(self) -> str:
    """Hash that changes when a video or a file of instructions changes."""
    folders = {os.path.dirname(name) for name in self._files}
    notes = sorted(
      os.path.join(folder, ANNOTATIONS)
      for folder in folders
      if os.path.isfile(os.path.join(self._root, folder, ANNOTATIONS))
    )
    return episode.fingerprint(self._root, [*self._files, *notes])

  def _read_tasks(self) -> dict[str, str]:
    """The instructions, by name. Errors in files of instructions are added to `skipped`."""
    tasks, names = {}, set(self.names)
    for folder in sorted({os.path.dirname(name) for name in self._files}):
      path = os.path.join(self._root, folder, ANNOTATIONS)
      if not os.path.isfile(path):
        continue
      label = video.printable(os.path.join(folder, ANNOTATIONS))
      try:
        with open(path, encoding="utf-8") as file:
          entries = list(json.load(file).items())
      except (OSError, ValueError, AttributeError) as error:
        self.skipped.append({"name": label, "reason": f"not readable instructions ({error})"})
        warnings.warn(
          f'{video.printable(path)} is ignored: expected {{"file.mp4": "instruction"}} ({error})',
          stacklevel=2,
        )
        continue
      wrong = []
      for key, text in entries:
        name = video.printable(os.path.join(folder, key))
        if isinstance(text, str) and name in names:
          tasks[name] = text
        else:
          wrong.append(key)
      if wrong:
        reason = (
          f"{len(wrong)} of {len(entries)} entries name no video of this folder or hold no "
          f"text, as {wrong[0]!r}"
        )
        self.skipped.append({"name": label, "reason": reason})
    return tasks


def _unique(files: Sequence[str]) -> tuple[str, ...]:
  """Printable names of files, all different."""
  taken: set[str] = set()
  names = []
  for file in files:
    name = base = video.printable(file)
    number = 1
    while name in taken:
      number += 1
      name = f"{base}~{number}"
    taken.add(name)
    names.append(name)
  return tuple(names)
