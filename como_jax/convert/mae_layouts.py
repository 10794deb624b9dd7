"""The layouts of published MAE and ViT checkpoints, and their conversion rules."""

from collections.abc import Sequence

from como_jax import errors
from como_jax.convert import mapping

Rule = mapping.Rule

# Heads of other tasks, which are left out.
IGNORED = {
  "huggingface": (r"vit\.(classifier|pooler|layernorm_pool)\..*",),
  "timm": (r"(head|fc_norm|head_drop)\..*",),
  "original": (r"(head|fc_norm)\..*",),
}
# The decoder, which is left out if it is not requested.
DECODER = {"huggingface": r"decoder\..*", "timm": r"(?!)", "original": r"decoder_.*|mask_token"}

# transformers 5 has new names in memory. It saves the encoder with the old names and the decoder
# with yet other names.
SPELLINGS = {
  "huggingface": (
    (r"^(?!vit\.|decoder\.)", "vit."),
    (r"^vit\.layers\.", "vit.encoder.layer."),
    (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
  ),
  "timm": (),
  "original": (),
}


def detect(names: Sequence[str], *, what: str = "checkpoint") -> str:
  """Detects the layout by the names of a checkpoint's tensors.

  Args:
    names: names of the tensors.
    what: name of the checkpoint in messages.

  Returns:
    "huggingface", "timm" or "original".

  Raises:
    errors.UserError: the names are not those of an MAE or ViT.
  """

  def any_starts_with(*starts: str) -> bool:
    return any(name.startswith(starts) for name in names)

  if any_starts_with("embeddings.", "encoder.layer.", "vit.", "layers."):
    return "huggingface"
  if any_starts_with("blocks.", "patch_embed."):
    return "original" if any_starts_with("decoder_") else "timm"
  raise errors.UserError(
    f"{what} is not an MAE or ViT checkpoint: no 'embeddings.', 'blocks.' or 'patch_embed.' among "
    f"its {len(names)} names ({', '.join(sorted(names)[:4])}{', ...' if len(names) > 4 else ''})"
  )


def rules(layout: str, *, decoder: bool = False) -> list[Rule]:
  """The rules of a layout for the encoder, and with `decoder` also for the pixel decoder."""
  if layout == "huggingface":
    table = _huggingface("vit.", "encoder.layer", "encoder") + [
      Rule("vit.embeddings.cls_token", "encoder/cls"),
      Rule("vit.embeddings.position_embeddings", "encoder/position"),
      *_patch("vit.embeddings.patch_embeddings.projection"),
      *_norm("vit.layernorm", "encoder/norm"),
    ]
    decoder_table = _huggingface("decoder.", "decoder_layers", "decoder") + _decoder(
      "decoder.decoder_", "decoder.mask_token"
    )
  else:
    table = _timm("blocks", "encoder") + [
      Rule("cls_token", "encoder/cls"),
      Rule("pos_embed", "encoder/position"),
      *_patch("patch_embed.proj"),
      *_norm("norm", "encoder/norm"),
    ]
    decoder_table = _timm("decoder_blocks", "decoder") + _decoder("decoder_", "mask_token")
  return table + (decoder_table if decoder else [])


def _linear(name: str, target: str) -> list[Rule]:
  return [
    Rule(f"{name}.weight", f"{target}/kernel", "o i -> i o"),
    Rule(f"{name}.bias", f"{target}/bias"),
  ]


def _norm(name: str, target: str) -> list[Rule]:
  return [Rule(f"{name}.weight", f"{target}/scale"), Rule(f"{name}.bias", f"{target}/bias")]


def _patch(name: str) -> list[Rule]:
  return [
    Rule(f"{name}.weight", "encoder/patch/kernel", "d c p q -> p q c d"),
    Rule(f"{name}.bias", "encoder/patch/bias"),
  ]


def _decoder(prefix: str, mask_token: str) -> list[Rule]:
  return [
    Rule(mask_token, "decoder/mask_token"),
    Rule(f"{prefix}pos_embed", "decoder/position"),
    *_linear(f"{prefix}embed", "decoder/embed"),
    *_norm(f"{prefix}norm", "decoder/norm"),
    *_linear(f"{prefix}pred", "decoder/head"),
  ]


def _huggingface(prefix: str, stack: str, target: str) -> list[Rule]:
  layer, blocks = f"{prefix}{stack}.{mapping.LAYER}.", f"{target}/blocks/"
  return [
    *_norm(layer + "layernorm_before", blocks + "norm_attention"),
    *(
      rule
      for part in ("query", "key", "value")
      for rule in _linear(f"{layer}attention.attention.{part}", f"{blocks}attention/{part}")
    ),
    *_linear(layer + "attention.output.dense", blocks + "attention/output"),
    *_norm(layer + "layernorm_after", blocks + "norm_mlp"),
    *_linear(layer + "intermediate.dense", blocks + "mlp/up"),
    *_linear(layer + "output.dense", blocks + "mlp/down"),
  ]


def _timm(stack: str, target: str) -> list[Rule]:
  layer, blocks = f"{stack}.{mapping.LAYER}.", f"{target}/blocks/"
  heads = tuple(f"{blocks}attention/{part}" for part in ("query", "key", "value"))
  return [
    *_norm(layer + "norm1", blocks + "norm_attention"),
    Rule(
      layer + "attn.qkv.weight", tuple(f"{part}/kernel" for part in heads), "(part o) i -> part i o"
    ),
    Rule(layer + "attn.qkv.bias", tuple(f"{part}/bias" for part in heads), "(part o) -> part o"),
    *_linear(layer + "attn.proj", blocks + "attention/output"),
    *_norm(layer + "norm2", blocks + "norm_mlp"),
    *_linear(layer + "mlp.fc1", blocks + "mlp/up"),
    *_linear(layer + "mlp.fc2", blocks + "mlp/down"),
  ]
