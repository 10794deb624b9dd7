"""Torch twin of the DiT block with cross-attention, written with torch's own attention and
LayerNorm.
"""

import torch.nn.functional as F
from torch import nn


class DiTBlock(nn.Module):
  def __init__(self, width, heads, mlp, context):
    super().__init__()
    self.heads, self.modulation = heads, nn.Linear(width, 9 * width)
    self.attention = nn.ModuleDict(
      {name: nn.Linear(width, width) for name in ("query", "key", "value", "output")}
    )
    self.cross_attention = nn.ModuleDict(
      {
        "query": nn.Linear(width, width),
        "key": nn.Linear(context, width),
        "value": nn.Linear(context, width),
        "output": nn.Linear(width, width),
      }
    )
    self.mlp = nn.ModuleDict({"up": nn.Linear(width, mlp), "down": nn.Linear(mlp, width)})

  def attend(self, layers, x, source, mask):
    query, key, value = (
      layers[name](given).unflatten(-1, (self.heads, -1)).transpose(1, 2)
      for name, given in (("query", x), ("key", source), ("value", source))
    )
    return layers["output"](
      F.scaled_dot_product_attention(query, key, value, attn_mask=mask).transpose(1, 2).flatten(2)
    )

  def forward(self, x, mask, context, context_mask, condition, group):
    """Condition [B, G, D], group [N]: which condition each token has."""
    parts = self.modulation(F.silu(condition))[:, group].chunk(9, dim=-1)

    def normed(x, number):
      return (
        F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + parts[3 * number + 1]) + parts[3 * number]
      )

    y = normed(x, 0)
    x = x + parts[2] * self.attend(self.attention, y, y, mask)
    x = x + parts[5] * self.attend(self.cross_attention, normed(x, 1), context, context_mask)
    return x + parts[8] * self.mlp["down"](F.gelu(self.mlp["up"](normed(x, 2))))
