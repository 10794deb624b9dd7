"""como_jax/convert/torch_zip.py: reads real files, runs nothing, and says what is wrong with the
others.
"""

import argparse
import collections
import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from como_jax import errors
from como_jax.convert import torch_zip
from tests.convert import layouts

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32([7.0])}


class Trap:
  """Makes a folder when it is unpickled."""

  def __init__(self, path):
    self.path = str(path)

  def __reduce__(self):
    return os.mkdir, (self.path,)


def write_zip(path, content, name="archive/data.pkl"):
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr(name, content)
  return path


def test_reads_nested_dicts_with_arguments(tmp_path):
  def wrap(tensors):
    return {"model": tensors, "epoch": 3, "args": argparse.Namespace(device="cuda", lr=0.1)}

  path = layouts.torch_file(tmp_path / "a.pth", ARRAYS, wrap=wrap)
  found = torch_zip.state_dict(path)
  assert set(found) == set(ARRAYS) and all(
    np.array_equal(found[name], ARRAYS[name]) for name in ARRAYS
  )
  assert not isinstance(torch_zip.load(path)["args"], argparse.Namespace)


def test_prefix_of_parallel_training_is_dropped(tmp_path):
  path = layouts.torch_file(
    tmp_path / "a.pt",
    {f"module.{k}": v for k, v in ARRAYS.items()},
    wrap=lambda t: {"state_dict": t},
  )
  assert set(torch_zip.state_dict(path)) == set(ARRAYS)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_booby_trap_is_refused_by_name_and_not_run(tmp_path, protocol):
  victim = tmp_path / "made"
  path = write_zip(tmp_path / "trap.pt", pickle.dumps({"w": Trap(victim)}, protocol=protocol))
  with pytest.raises(errors.UserError, match=r"trap\.pt.*(posix|nt)\.mkdir.*nothing was run"):
    torch_zip.load(path)
  assert not victim.exists()


@pytest.mark.parametrize(
  "module, name",
  [
    ("builtins", "eval"),
    ("builtins", "getattr"),
    ("torch", "load"),
    ("torch._utils", "_rebuild_qtensor"),
    ("collections", "Counter"),
    ("argparse", "ArgumentParser"),
    ("collections", "abc.Callable"),
    ("numpy.core.multiarray", "scalar"),
  ],
)
def test_any_other_name_is_refused(tmp_path, module, name):
  path = write_zip(tmp_path / "x.pt", f"c{module}\n{name}\n(tR.".encode())
  with pytest.raises(errors.UserError, match=f"asks for {module}.{name}"):
    torch_zip.load(path)


def test_a_pickle_cannot_change_what_it_is_given(tmp_path):
  # BUILD (b) with a state sets attributes, or calls __setstate__: on the stand-in for a dtype, and
  # on a class of ours.
  for start in (
    b"ctorch\nFloatStorage\n",
    b"cargparse\nNamespace\n",
    b"ccollections\nOrderedDict\n",
  ):
    path = write_zip(tmp_path / "x.pt", start + b"(N}Vheld\nI1\nstb.")
    with pytest.raises(errors.UserError, match="pickle cannot be read"):
      torch_zip.load(path)
  assert not hasattr(collections.OrderedDict, "held")


@pytest.mark.parametrize(
  "content",
  [b"\x80\x02]r\xff\xff\xff\x7f.", b"\x80\x05\x96" + b"\xff" * 7 + b"\x00.", b"\x82\x01."],
)
def test_opcodes_that_take_memory_or_objects_from_outside_are_refused(tmp_path, content):
  with pytest.raises(errors.UserError, match="pickle cannot be read"):
    torch_zip.load(write_zip(tmp_path / "x.pt", content))


@pytest.mark.parametrize("strides", [(1000, 1), (-3, 1), (1,), (0.5, 1)])
def test_views_stay_inside_their_storage(tmp_path, strides):
  path = layouts.torch_file(tmp_path / "a.pt", {"a": ARRAYS["a"]}, strides=strides)
  with pytest.raises(errors.UserError, match="pickle cannot be read"):
    torch_zip.load(path)


def test_broken_files_are_named(tmp_path):
  good = layouts.torch_file(tmp_path / "good.pt", {"a": np.zeros(1000, np.float32)})
  content = good.read_bytes()
  cases = {
    "cut.pt": (content[: len(content) // 2], "truncated or damaged"),
    "empty.pt": (b"", "not a file written by torch.save"),
    "text.pt": (b"hello", "not a file written by torch.save"),
    "legacy.pt": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "legacy torch file.*re-save"),
    "flipped.pt": (content.replace(bytes(64), b"\x01" * 64, 1), "truncated or damaged.*CRC"),
  }
  for name, (data, message) in cases.items():
    (tmp_path / name).write_bytes(data)
    with pytest.raises(errors.UserError, match=f"{name}.*{message}"):
      torch_zip.load(tmp_path / name)
  with pytest.raises(errors.UserError, match="absent.pt.*No such file"):
    torch_zip.load(tmp_path / "absent.pt")
  with pytest.raises(errors.UserError, match="no data.pkl"):
    torch_zip.load(write_zip(tmp_path / "other.npz", b"", name="a.npy"))
  with pytest.raises(errors.UserError, match="cannot be read"):
    torch_zip.load(write_zip(tmp_path / "garbled.pt", b"\xff\xff"))


def test_missing_or_short_storages_are_named(tmp_path):
  path = layouts.torch_file(tmp_path / "a.pt", {"a": ARRAYS["a"]})
  with zipfile.ZipFile(path) as archive:
    described = archive.read("archive/data.pkl")
  with pytest.raises(errors.UserError, match="no entry archive/data/0"):
    torch_zip.load(write_zip(path, described))
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("archive/data/0", bytes(20))
  with pytest.raises(errors.UserError, match="archive/data/0 has 20 bytes, expected 24"):
    torch_zip.load(path)


def test_what_is_not_a_state_dict_is_named(tmp_path):
  with pytest.raises(errors.UserError, match="holds a list"):
    torch_zip.state_dict(layouts.torch_file(tmp_path / "a.pt", {}, wrap=lambda _: [1]))
  with pytest.raises(errors.UserError, match="with keys epoch"):
    torch_zip.state_dict(layouts.torch_file(tmp_path / "b.pt", {}, wrap=lambda _: {"epoch": 1}))
  with pytest.raises(errors.UserError, match="1 entries .* not named tensors: step"):
    torch_zip.state_dict(
      layouts.torch_file(tmp_path / "c.pt", ARRAYS, wrap=lambda t: {**t, "step": 3})
    )


@pytest.mark.reference
def test_reads_what_torch_writes(tmp_path):
  import torch

  base = torch.arange(24, dtype=torch.float32)
  tensors = collections.OrderedDict(
    whole=base,
    part=base[4:10].reshape(2, 3),
    transposed=base.reshape(4, 6).T,
    strided=base[1::2],
    scalar=torch.tensor(2.5),
    parameter=torch.nn.Parameter(torch.ones(2)),
    half=torch.randn(3).half(),
    brain=torch.randn(2, 2).bfloat16(),
    long=torch.arange(3),
    bool=torch.tensor([True, False]),
    empty=torch.zeros(0, 3),
    expanded=torch.ones(1, 3).expand(4, 3),
  )
  torch.save(
    {
      "model": tensors,
      "args": argparse.Namespace(lr=1.0),
      "optimizer": {"state": {0: {"step": 1}}},
    },
    tmp_path / "a.pth",
  )
  found = torch_zip.state_dict(tmp_path / "a.pth")
  assert list(found) == list(tensors)
  for name, tensor in tensors.items():
    expected = tensor.detach().float().numpy() if name == "brain" else tensor.detach().numpy()
    np.testing.assert_array_equal(
      found[name].astype(np.float32) if name == "brain" else found[name], expected, err_msg=name
    )
  assert (
    found["brain"].dtype == ml_dtypes.bfloat16
    and found["half"].dtype == np.float16
    and found["long"].dtype == np.int64
  )
  assert np.shares_memory(found["whole"], found["part"]) and not found["whole"].flags.writeable


@pytest.mark.reference
def test_reads_a_modules_state_and_refuses_a_whole_module_and_legacy_files(tmp_path):
  import torch

  module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
  torch.save(module.state_dict(), tmp_path / "state.pt")
  found = torch_zip.state_dict(tmp_path / "state.pt")
  assert {name: leaf.shape for name, leaf in found.items()} == {
    name: tuple(t.shape) for name, t in module.state_dict().items()
  }
  torch.save(module, tmp_path / "module.pt")
  with pytest.raises(
    errors.UserError, match="asks for torch.nn.modules.container.Sequential.*state_dict"
  ):
    torch_zip.load(tmp_path / "module.pt")
  torch.save(module.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
  with pytest.raises(errors.UserError, match="legacy torch file"):
    torch_zip.load(tmp_path / "old.pt")
