"""Random checkpoints in each foreign layout, and files as torch writes them, made without torch."""

import io
import pickle
import zipfile

import numpy as np

from como_jax import trees, weights

WIDTH, DEPTH, PATCH, GRID, INNER, INNER_DEPTH = 32, 3, 8, 2, 16, 2


def _random(shapes):
  rng = np.random.default_rng(0)
  return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def _pair(name, out, *more):
  return {f"{name}.weight": (out, *more), f"{name}.bias": (out,)}


def _timm_block(layer, width):
  return {
    **_pair(f"{layer}norm1", width),
    **_pair(f"{layer}attn.qkv", 3 * width, width),
    **_pair(f"{layer}attn.proj", width, width),
    **_pair(f"{layer}norm2", width),
    **_pair(f"{layer}mlp.fc1", 4 * width, width),
    **_pair(f"{layer}mlp.fc2", width, 4 * width),
  }


def _huggingface_block(layer, width):
  shapes = {
    **_pair(f"{layer}layernorm_before", width),
    **_pair(f"{layer}layernorm_after", width),
    **_pair(f"{layer}attention.output.dense", width, width),
    **_pair(f"{layer}intermediate.dense", 4 * width, width),
    **_pair(f"{layer}output.dense", width, 4 * width),
  }
  for part in ("query", "key", "value"):
    shapes |= _pair(f"{layer}attention.attention.{part}", width, width)
  return shapes


def timm():
  shapes = {
    "cls_token": (1, 1, WIDTH),
    "pos_embed": (1, GRID**2 + 1, WIDTH),
    **_pair("patch_embed.proj", WIDTH, 3, PATCH, PATCH),
    **_pair("norm", WIDTH),
  }
  for layer in range(DEPTH):
    shapes |= _timm_block(f"blocks.{layer}.", WIDTH)
  return _random(shapes)


def original():
  shapes = {
    "mask_token": (1, 1, INNER),
    "decoder_pos_embed": (1, GRID**2 + 1, INNER),
    **_pair("decoder_embed", INNER, WIDTH),
    **_pair("decoder_norm", INNER),
    **_pair("decoder_pred", 3 * PATCH**2, INNER),
  }
  for layer in range(INNER_DEPTH):
    shapes |= _timm_block(f"decoder_blocks.{layer}.", INNER)
  return {**timm(), **_random(shapes)}


def huggingface(decoder=False):
  shapes = {
    "vit.embeddings.cls_token": (1, 1, WIDTH),
    "vit.embeddings.position_embeddings": (1, GRID**2 + 1, WIDTH),
    **_pair("vit.embeddings.patch_embeddings.projection", WIDTH, 3, PATCH, PATCH),
    **_pair("vit.layernorm", WIDTH),
  }
  for layer in range(DEPTH):
    shapes |= _huggingface_block(f"vit.encoder.layer.{layer}.", WIDTH)
  if decoder:
    shapes |= {
      "decoder.mask_token": (1, 1, INNER),
      "decoder.decoder_pos_embed": (1, GRID**2 + 1, INNER),
      **_pair("decoder.decoder_embed", INNER, WIDTH),
      **_pair("decoder.decoder_norm", INNER),
      **_pair("decoder.decoder_pred", 3 * PATCH**2, INNER),
    }
    for layer in range(INNER_DEPTH):
      shapes |= _huggingface_block(f"decoder.decoder_layers.{layer}.", INNER)
  return _random(shapes)


class _Named:
  """Pickles as a global name, whether or not it can be imported here."""

  def __init__(self, module, name):
    self.module, self.name = module, name


class _Storage:
  def __init__(self, key, count):
    self.key, self.count = key, count


class _Tensor:
  def __init__(self, *args):
    self.args = args


class _Pickler(pickle._Pickler):  # the one in Python: its opcodes can be written directly
  def persistent_id(self, obj):
    if isinstance(obj, _Storage):
      return ("storage", _Named("torch", "FloatStorage"), obj.key, "cpu", obj.count)
    return None

  def save(self, obj, save_persistent_id=True):
    if isinstance(obj, _Named):
      self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
    elif isinstance(obj, _Tensor):
      self.save(_Named("torch._utils", "_rebuild_tensor_v2"))
      self.save(obj.args)
      self.write(pickle.REDUCE)
    else:
      super().save(obj, save_persistent_id)


def torch_file(path, tensors, *, wrap=lambda tensors: tensors, strides=None):
  """Writes float32 arrays as torch.save does (protocol 2, one storage a tensor); `strides` replaces
  those of all.
  """
  storages, described = [], {}
  for name, array in tensors.items():
    count = [s // array.itemsize for s in np.ascontiguousarray(array).strides]
    described[name] = _Tensor(
      _Storage(str(len(storages)), array.size), 0, array.shape, strides or tuple(count), False, {}
    )
    storages.append(np.ascontiguousarray(array).tobytes())
  buffer = io.BytesIO()
  _Pickler(buffer, protocol=2).dump(wrap(described))
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", buffer.getvalue())
    archive.writestr("archive/byteorder", "little")
    for key, content in enumerate(storages):
      archive.writestr(f"archive/data/{key}", content)
  return path


HEADS = dict(heads=2)


def flat_leaves(params):
  return dict(trees.flatten(params).items())


def write_tensors(path, tensors):
  weights.write_safetensors(path, tensors)
  return path
