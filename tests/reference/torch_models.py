"""Torch twins, written from the method's description with torch's own layers: strided convolutions,
PixelShuffle, GELU.

They exist to catch what two readings of one layout would hide: transposed kernels, patch orders,
epsilon, kind of GELU. `load` copies our parameters (scanned layers, [in, out] kernels, [p, p, 3, D]
patches) into a twin.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

EPSILON = 1e-12


class Block(nn.Module):
  def __init__(self, width, heads, mlp):
    super().__init__()
    self.heads = heads
    self.norm_attention, self.norm_mlp = (
      nn.LayerNorm(width, eps=EPSILON),
      nn.LayerNorm(width, eps=EPSILON),
    )
    self.attention = nn.ModuleDict(
      {name: nn.Linear(width, width) for name in ("query", "key", "value", "output")}
    )
    self.mlp = nn.ModuleDict({"up": nn.Linear(width, mlp), "down": nn.Linear(mlp, width)})

  def forward(self, x):
    y = self.norm_attention(x)
    query, key, value = (
      self.attention[name](y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
      for name in ("query", "key", "value")
    )
    x = x + self.attention["output"](
      F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
    )
    return x + self.mlp["down"](F.gelu(self.mlp["up"](self.norm_mlp(x))))


class Trunk(nn.Module):
  """Blocks and a final LayerNorm."""

  def __init__(self, width, depth, heads, mlp):
    super().__init__()
    self.blocks = nn.ModuleList([Block(width, heads, mlp) for _ in range(depth)])
    self.norm = nn.LayerNorm(width, eps=EPSILON)

  def run(self, x):
    for block in self.blocks:
      x = block(x)
    return self.norm(x)


class Encoder(Trunk):
  def __init__(self, width, depth, heads, mlp, patch, tokens):
    super().__init__(width, depth, heads, mlp)
    self.patch = nn.Conv2d(3, width, patch, patch)
    self.cls, self.position = (
      nn.Parameter(torch.zeros(1, 1, width)),
      nn.Parameter(torch.zeros(1, tokens, width)),
    )

  def forward(self, images):
    x = self.patch(images).flatten(2).transpose(1, 2)
    return self.run(torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.position)


class QFormer(Trunk):
  def __init__(self, width, depth, heads, mlp, queries, features, length):
    super().__init__(width, depth, heads, mlp)
    self.queries, self.separator = (
      nn.Parameter(torch.zeros(1, queries, width)),
      nn.Parameter(torch.zeros(1, 1, width)),
    )
    self.position, self.token_type = (
      nn.Parameter(torch.zeros(1, length, width)),
      nn.Parameter(torch.zeros(2, width)),
    )
    self.projection = nn.Linear(features, width)

  def forward(self, first, difference, types=(0, 0)):
    count = len(first)
    halves = [
      self.projection(half) + self.token_type[types[i]]
      for i, half in enumerate((first, difference))
    ]
    queries, separator = (row.expand(count, -1, -1) for row in (self.queries, self.separator))
    x = torch.cat([queries, halves[0], separator, halves[1]], dim=1)
    return self.run(x + self.position)[:, : self.queries.shape[1]]


class FDM(Trunk):
  def __init__(self, width, depth, heads, mlp, patch, patches, queries, dims):
    super().__init__(width, depth, heads, mlp)
    self.up_0, self.up_1, self.pool = (
      nn.Linear(dims, dims),
      nn.Linear(dims, width),
      nn.Linear(queries * width, width),
    )
    self.patch, self.position = (
      nn.Conv2d(3, width, patch, patch),
      nn.Parameter(torch.zeros(1, patches, width)),
    )
    self.head, self.shuffle = nn.Conv2d(width, 3 * patch**2, 1), nn.PixelShuffle(patch)

  def forward(self, images, latent):
    grid = self.patch(images)
    pooled = self.pool(self.up_1(torch.tanh(self.up_0(latent))).flatten(1))
    x = self.run(grid.flatten(2).transpose(1, 2) + pooled[:, None] + self.position)
    return self.shuffle(self.head(x.transpose(1, 2).unflatten(2, grid.shape[2:])))


class Bottleneck(nn.Module):
  def __init__(self, width, dims):
    super().__init__()
    self.down_0, self.down_1 = nn.Linear(width, width), nn.Linear(width, dims)

  def forward(self, hidden):
    return self.down_1(torch.tanh(self.down_0(hidden)))


class Motion(nn.Module):
  """All of it on independent pairs, as the released code trains: three frames are encoded for every
  pair.
  """

  def __init__(self, encoder, qformer, bottleneck, fdm):
    super().__init__()
    self.encoder, self.fdm = encoder, fdm
    self.idm = nn.ModuleDict({"qformer": qformer, "bottleneck": bottleneck})

  def forward(self, frames, jittered, weight=0.004):
    """The loss of uint8 frames [B, 2, H, W, 3] and jittered second frames [B, 1, H, W, 3]; the
    encoder gets no gradient.
    """
    current, future, later = (normalize(x) for x in (frames[:, 0], frames[:, 1], jittered[:, 0]))
    with torch.no_grad():
      first, second, third = self.encoder(torch.cat([current, future, later])).chunk(3)
    changes = torch.cat([second - first, first - second, third - first])
    latents = self.idm["bottleneck"](
      self.idm["qformer"](torch.cat([first, second, first]), changes)
    )
    z, reverse, jitter = latents.chunk(3)
    reconstruction = F.mse_loss(self.fdm(current, z).float(), future)
    return reconstruction + weight * contrastive(
      *(x.flatten(1).float() for x in (z, jitter, reverse))
    )


def normalize(frames):
  """uint8 [B, H, W, 3] -> ImageNet-normalized [B, 3, H, W]."""
  mean, std = (
    frames.new_tensor([0.485, 0.456, 0.406], dtype=torch.float32),
    frames.new_tensor([0.229, 0.224, 0.225], dtype=torch.float32),
  )
  return ((frames.float() / 255 - mean) / std).permute(0, 3, 1, 2)


def contrastive(z, jittered, reverse, temperature=0.1):
  similarities = torch.stack(
    [
      F.cosine_similarity(jittered, z, dim=-1),
      F.cosine_similarity(jittered, reverse, dim=-1),
      F.cosine_similarity(z, reverse, dim=-1),
    ],
    dim=-1,
  )
  labels = torch.zeros(len(z), dtype=torch.long, device=z.device)
  return F.cross_entropy(similarities / temperature, labels)


def lpips(stored, convolutions, a, b):
  """LPIPS of images in [0, 1], [F, 3, H, W], with weights under torchvision's and LPIPS's names."""
  shift, scale = (
    torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1),
    torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1),
  )
  x, y = ((2 * image - 1 - shift) / scale for image in (a, b))
  total = 0
  for number, block in enumerate(convolutions):
    if number:
      x, y = F.max_pool2d(x, 2), F.max_pool2d(y, 2)
    for i in block:
      kernel, bias = stored[f"features.{i}.weight"], stored[f"features.{i}.bias"]
      x, y = (F.relu(F.conv2d(v, kernel, bias, padding=1)) for v in (x, y))
    difference = (
      x / (x.norm(dim=1, keepdim=True) + 1e-10) - y / (y.norm(dim=1, keepdim=True) + 1e-10)
    ) ** 2
    total = total + F.conv2d(difference, stored[f"lin{number}.model.1.weight"]).mean(dim=(1, 2, 3))
  return total


def load(twin, params):
  """Copies a flat {name: array} of ours into a twin; every parameter of both is used exactly
  once.
  """
  state, own = {}, twin.state_dict()
  for name, value in params.items():
    value = np.asarray(value)
    layers = enumerate(value) if "blocks/" in name else [(None, value)]
    for layer, leaf in layers:
      target = name.replace("blocks/", f"blocks/{layer}/").replace("/", ".")
      target = target.replace(".kernel", ".weight").replace(".scale", ".weight")
      if target.endswith(".weight") and leaf.ndim == 2:
        leaf = leaf.T
      elif target.endswith(".weight") and leaf.ndim == 4:
        leaf = leaf.transpose(3, 2, 0, 1)
      if own[target].ndim == 4 and leaf.ndim == 2:  # a 1 x 1 convolution
        leaf = leaf[:, :, None, None]
      state[target] = torch.tensor(np.ascontiguousarray(leaf))
  twin.load_state_dict(state, strict=True)
  return twin.eval()
