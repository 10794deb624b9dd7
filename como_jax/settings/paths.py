"""Paths are folders and files of this machine, of a mounted file system, or of an object store."""

from como_jax import errors, storage

# keys whose path may be in a store -> whether it is written to
STORED = {
  "--workdir": True,
  "checkpoint": False,
  "init": False,
  "encoder_weights": False,
  "data.labels": False,
  "data.path": False,
  "language.weights": False,
  "objectives.perceptual.weights_path": False,
}


def checked(name: str, path: str, *, key: str = "") -> str:
  """The path as it is: a local one, or one of a store where the key can use that.

  Args:
    name: of the flag, key or variable that holds it, for the message.
    path: as it was given.
    key: of `STORED`, where the name is another one.

  Raises:
    errors.UserError: an address that cannot be used here. As a path it would become a local folder
      called "gs:".
  """
  key = key or name.removeprefix("config.")
  if key not in STORED:
    return local(name, path)
  try:
    storage.check(path, write=STORED[key])
  except errors.UserError as error:
    raise errors.UserError(f"{name}: {error}") from error
  if STORED[key] and storage.is_remote(path) and storage.split(path)[0] == "memory":
    raise errors.UserError(
      f"{name}: {path} is memory of this process, gone at its end: give a local path, gs:// or s3://"
    )
  return path


def local(name: str, path: str) -> str:
  """The path as it is.

  Args:
    name: of the flag, key or variable that holds it, for the message.
    path: as it was given.

  Raises:
    errors.UserError: it is a URL. Nothing here reads or writes one; as a path it would become a
      local folder called "gs:".
  """
  if "://" in str(path):
    scheme = str(path).partition("://")[0]
    advice = (
      "give the path alone"
      if scheme == "file"
      else "give a local folder (download or mount it first: gcsfuse, NFS)"
    )
    raise errors.UserError(f"{name}={path}: URLs are not supported, {advice}")
  return path
