r"""Converts text encoders of Hugging Face to a weights folder, which also holds the tokenizer.

    python -m como_jax.convert.text SOURCE_FOLDER OUT_FOLDER [--dtype float32|bfloat16] \
        [--overwrite]

SOURCE_FOLDER holds config.json, tokenizer.json and safetensors or torch weights, in one piece or in
shards. "model_type" in config.json is one of three kinds:

    bert  BERT and models with the same architecture, for example MiniLM; the pooling of
          sentence-transformers is read if it is present
    t5    the encoder of T5, T5 1.1, Flan-T5 or mT5; a decoder is left out
    clip  the text encoder of CLIP; an image encoder is left out

Source of the names: transformers (models/bert, models/t5, models/clip).
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from como_jax import errors, trees, weights
from como_jax.convert import mae, mapping, source, text_layouts

TOKENIZER = "tokenizer.json"
_T5_LENGTH = 512  # tokens in the training of T5, which has no position table with a length


def from_folder(folder: str | os.PathLike) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads a folder of Hugging Face.

  Returns:
    (our parameters, {"kind", "sizes": fields of the class in models.text, "length": maximum number
    of tokens of a text, "source", "sha256"}).

  Raises:
    errors.UserError: a file is missing or broken, the kind or variant is not implemented, or names
      are missing or left over.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise errors.UserError(
      f"{folder} is not a folder; expected one with config.json, {TOKENIZER} and weights"
    )
  config = weights.read_json(folder / weights.CONFIG)
  tokenizer(folder)
  name = config.get("model_type")
  if name not in text_layouts.LAYOUTS:
    raise errors.UserError(
      f"{folder / weights.CONFIG}: model_type is {name!r}; "
      f"{errors.nearest(str(name), text_layouts.LAYOUTS)}"
    )
  layout = text_layouts.LAYOUTS[name]
  checkpoint = source.read(folder)
  spellings = layout.spellings
  if layout.kind == "t5" and "shared.weight" not in checkpoint.tensors:
    # The embeddings are tied: a file may have one of the names or both.
    spellings = ((r"^encoder\.embed_tokens\.weight$", "shared.weight"),)
  tensors = mapping.rename(checkpoint.tensors, spellings, what=str(folder))
  text = config.get("text_config") if name == "clip" else config
  sizes = layout.sizes(
    text_layouts.Facts(text if isinstance(text, dict) else {}, str(folder / weights.CONFIG)),
    tensors,
  )
  if sizes["heads"] < 1 or layout.kind != "t5" and sizes["width"] % sizes["heads"]:
    raise errors.UserError(
      f"{folder / weights.CONFIG}: width {sizes['width']} cannot have {sizes['heads']} "
      "attention heads"
    )
  if layout.kind == "bert":
    sizes["pooling"] = _pooling(folder)
  params = mapping.apply(
    layout.rules(sizes),
    tensors,
    ignore=layout.ignore,
    shapes=layout.shapes(sizes),
    what=str(folder),
  )
  return params, {
    "kind": layout.kind,
    "sizes": sizes,
    "length": _length(folder, sizes),
    "source": checkpoint.name,
    "sha256": checkpoint.sha256,
  }


def tokenizer(folder: str | os.PathLike) -> pathlib.Path:
  """The path of the tokenizer.json in a folder; errors.UserError if it does not exist."""
  path = pathlib.Path(folder) / TOKENIZER
  if not path.is_file():
    raise errors.UserError(
      f"{path} does not exist; write it with transformers: "
      f"AutoTokenizer.from_pretrained(NAME).save_pretrained({str(folder)!r})"
    )
  return path


def convert(
  path: str, output: str, *, dtype: str = "float32", overwrite: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads SOURCE_FOLDER and writes OUT_FOLDER atomically.

  Args:
    path: SOURCE_FOLDER.
    output: OUT_FOLDER.
    dtype: "float32" or "bfloat16".
    overwrite: replace OUT_FOLDER if it is a weights-only folder.

  Returns:
    (parameters, facts), as `weights.load` will return them.

  Raises:
    errors.UserError: OUT_FOLDER cannot be written, or SOURCE_FOLDER cannot be read or converted.
  """
  weights.check_writable(output, overwrite=overwrite)
  source_path, output_path = pathlib.Path(path).resolve(), pathlib.Path(output).resolve()
  if output_path == source_path or output_path in source_path.parents:
    raise errors.UserError(f"{output} is, or holds, the source {path}; choose another output")
  params, facts = from_folder(path)
  facts = {**facts, "dtype": dtype}
  params = trees.unflatten(
    {name: weights.cast(leaf, dtype) for name, leaf in trees.flatten(params).items()}
  )
  unique = uuid.uuid4().hex[:8]
  new, old = (
    output_path.with_name(f".{output_path.name}.{kind}-{unique}") for kind in ("text", "old")
  )
  try:
    weights.save(new, params, facts)
    shutil.copyfile(tokenizer(path), new / TOKENIZER)
    if output_path.exists():
      os.replace(output_path, old)
    os.replace(new, output_path)
  except OSError as error:
    if old.exists() and not output_path.exists():
      os.replace(old, output_path)
    raise errors.UserError(f"cannot write {output}: {error.strerror or error}") from None
  finally:
    shutil.rmtree(new, ignore_errors=True)
    if output_path.exists():
      shutil.rmtree(old, ignore_errors=True)
  return params, facts


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command line; returns the exit code: 0 done, 2 bad input."""
  parser = argparse.ArgumentParser(
    prog="python -m como_jax.convert.text",
    description="BERT, T5 or CLIP text weights -> a weights-only folder.",
  )
  parser.add_argument(
    "source", help="folder of Hugging Face: config.json, tokenizer.json and weights"
  )
  parser.add_argument("output", help="folder to write")
  parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
  parser.add_argument(
    "--overwrite", action="store_true", help="replace OUTPUT if it is a weights-only folder"
  )
  args = parser.parse_args(argv)
  try:
    params, facts = convert(args.source, args.output, dtype=args.dtype, overwrite=args.overwrite)
  except errors.UserError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(mae.summary(params, facts))
  print(f"written: {args.output}")
  return 0


def _pooling(folder: pathlib.Path) -> str:
  """The pooling of sentence-transformers, from the files in the folder; without them, "mean"."""
  if (folder / "modules.json").is_file():
    try:
      types = [
        str(module["type"]).rpartition(".")[2]
        for module in json.loads((folder / "modules.json").read_text())
      ]
    except (ValueError, KeyError, TypeError):
      raise errors.UserError(
        f"{folder / 'modules.json'} is not a list of modules with types"
      ) from None
    unsupported = [name for name in types if name not in ("Transformer", "Pooling", "Normalize")]
    if unsupported:
      raise errors.UserError(
        f"{folder / 'modules.json'} has a {unsupported[0]} module, which cannot be converted"
      )
  path = folder / "1_Pooling" / "config.json"
  if not path.is_file():
    return "mean"
  modes = [
    key
    for key, value in weights.read_json(path).items()
    if key.startswith("pooling_mode_") and value is True
  ]
  poolings = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
  if len(modes) != 1 or modes[0] not in poolings:
    raise errors.UserError(
      f"{path} pools by {', '.join(modes) or 'nothing'}; expected one of {', '.join(poolings)}"
    )
  return poolings[modes[0]]


def _length(folder: pathlib.Path, sizes: Mapping[str, Any]) -> int:
  max_length = sizes.get("positions", _T5_LENGTH)
  path = folder / "sentence_bert_config.json"
  if not path.is_file():
    return max_length
  return min(
    max_length,
    text_layouts.Facts(weights.read_json(path), str(path)).get("max_seq_length", int, max_length),
  )


if __name__ == "__main__":
  sys.exit(main())
