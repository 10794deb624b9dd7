"""The motion model: frozen encoder, inverse dynamics with its bottleneck, forward dynamics.

Legend: B batch, K frames of a clip, P pairs (K-1), H W image, N patches, D width of the encoder, Q
queries, Z latent dimensions per query. Source: CoMo, arXiv 2505.17006.

Each frame of a clip is encoded once. The forward, reversed and jittered pairs are formed from those
features, so K frames give K-1 pairs for K passes of the encoder instead of 2(K-1).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from como_jax.models import pixels, specs
from como_jax.models.motion import components as components_lib
from como_jax.models.motion import fdm as fdm_lib
from como_jax.models.motion import idm, inputs

TCL_GRADIENTS = ("all", "released")
Params = Mapping[str, Any]


class Motion(NamedTuple):
  """Result of `encode`.

  Attributes:
    z: [B, Q*Z], float32: the latent motion used as label.
    decoded: [B, Q, Z]: the input of the forward dynamics model in training (z, or its quantized or
      sampled version).
    terms: "commitment", "codebook", "kl" [B] and "codes" int32 [B, Q] where the bottleneck has
      them.
  """

  z: jax.Array
  decoded: jax.Array
  terms: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class MotionModel:
  """The record that a task works with; see `models.build`.

  Frames are float32, ImageNet-normalized, unless they come in a batch.

  Attributes:
    config: the model section it was built from.
    encoder: of frames, frozen.
    qformer: of pairs of frames.
    bottleneck: from the Q-former's outputs to the latent.
    fdm: the forward dynamics model.
    tcl_gradient: "all" trains everything through all three branches (as described). "released" runs
      the Q-former without gradient on the jittered and reversed branches, which then train only the
      down-projection.
    frozen: patterns of parameter names that are not trained unless the config says otherwise.
    components: the linear path to z, None where it is off.
  """

  config: dict[str, Any]
  encoder: nn.Module
  qformer: idm.QFormer
  bottleneck: nn.Module
  fdm: fdm_lib.FDM
  tcl_gradient: str
  frozen: tuple[str, ...] = (r"encoder/.*",)
  components: components_lib.Components | None = None

  @property
  def image_size(self) -> int:
    """H = W."""
    return self.fdm.image_size

  @property
  def latent(self) -> specs.LatentSpec:
    """Q and Z; its `size` is the length of z."""
    return self.fdm.latent

  def inputs_spec(
    self, batch_size: int, frames: int = 2, *, jittered: bool = False
  ) -> dict[str, jax.ShapeDtypeStruct]:
    """What `forward` reads: uint8 "frames" and, for Tcl, "jittered".

    Args:
      batch_size: B.
      frames: K.
      jittered: whether Tcl is trained.

    Returns:
      "frames" [B, K, H, W, 3] and "jittered" [B, K-1, H, W, 3].
    """
    image = (self.image_size, self.image_size, 3)
    spec = {"frames": jax.ShapeDtypeStruct((batch_size, frames, *image), jnp.uint8)}
    if jittered:
      spec["jittered"] = jax.ShapeDtypeStruct((batch_size, frames - 1, *image), jnp.uint8)
    return spec

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Fresh float32 parameters, drawn with `key`.

    Returns:
      {"encoder", "idm": {"qformer", "bottleneck"}, "fdm"}; "idm" also has "components" where the
      linear path is on.
    """
    keys = jax.random.split(key, 4)
    image = jnp.zeros((1, self.image_size, self.image_size, 3))
    tokens = jnp.zeros((1, self.qformer.patches + 1, self.fdm.features_width))
    latent = jnp.zeros((1, *dataclasses.astuple(self.latent)))
    hidden = jnp.zeros((1, self.qformer.num_queries, self.qformer.stack.width))
    linear = (
      {}
      if self.components is None
      else {
        "components": self.components.init(
          jax.random.fold_in(keys[1], 1), self.components.between((tokens, tokens), (image, image))
        )["params"]
      }
    )
    return {
      "encoder": self.encoder.init(keys[0], image)["params"],
      "idm": {
        "qformer": self.qformer.init(keys[1], tokens, tokens, keys[1])["params"],
        "bottleneck": self.bottleneck.init(keys[2], hidden, None)["params"],
        **linear,
      },
      "fdm": self.fdm.init(keys[3], image, latent, tokens[:, 1:])["params"],
    }

  def features(self, params: Params, frames: jax.Array) -> jax.Array:
    """All tokens of `frames`: [..., H, W, 3] -> [..., N+1, D], CLS first, float32."""
    chex.assert_shape(frames, (..., self.image_size, self.image_size, 3))
    flat = frames.reshape((-1, *frames.shape[-3:]))
    tokens = self.encoder.apply({"params": params["encoder"]}, flat)
    return tokens.reshape((*frames.shape[:-3], *tokens.shape[-2:]))

  def tokens(self, params: Params, images: jax.Array) -> jax.Array:
    """`features` of `images` as they come in a batch: uint8 [..., H, W, 3] -> [..., N+1, D]."""
    return self.features(params, pixels.normalize(images))

  def encode(
    self,
    params: Params,
    first: jax.Array,
    second: jax.Array,
    *,
    features: tuple[jax.Array, jax.Array] | None = None,
    key: jax.Array | None = None,
  ) -> Motion:
    """Two frames -> the motion between them.

    Args:
      params: as from `init`.
      first: [B, H, W, 3].
      second: [B, H, W, 3].
      features: tokens of first and second, each [B, N+1, D], if the caller has them. With inputs
        "rgb_diff" the second of them is not used: the difference of the frames is encoded.
      key: samples the latent (KL) and permutes patches ("shuffled"). None for labels: no sample,
        one fixed permutation.
    """
    chex.assert_shape([first, second], (None, self.image_size, self.image_size, 3))
    if inputs.INPUTS[self.qformer.inputs].pixel_difference:
      pair = (
        self.features(params, first) if features is None else features[0],
        self.features(params, second - first),
      )
    elif features is None:
      tokens = self.features(params, jnp.stack([first, second], axis=1))
      pair = tokens[:, 0], tokens[:, 1]
    else:
      pair = features
    moved = self.components and self.components.between(pair, (first, second))
    return self._latent(params, self._queries(params["idm"], *pair, moved, key), key)

  def differences(self, params: Params, frames: jax.Array) -> jax.Array:
    """The linear path's inputs of neighboring frames: clips [B, K, H, W, 3] -> [B*(K-1), G, D]."""
    tokens = self.features(params, frames)

    def flat(x: jax.Array) -> tuple[jax.Array, jax.Array]:
      return tuple(half.reshape((-1, *half.shape[2:])) for half in (x[:, :-1], x[:, 1:]))

    return self.components.between(flat(tokens), flat(frames))

  def decode(
    self, params: Params, first: jax.Array, z: jax.Array, *, features: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """Current frame and label -> the future frame.

    Args:
      params: as from `init`.
      first: [B, H, W, 3].
      z: [B, Q*Z] as from `encode` (quantized here where the model decodes codes).
      features: the first frame's tokens [B, N+1, D], if the caller has them.

    Returns:
      "pixels" [B, H, W, 3], and "features" [B, N, D] if configured.
    """
    chex.assert_shape(z, (first.shape[0], self.latent.size))
    latent = einops.rearrange(z, "b (q d) -> b q d", q=self.latent.num_queries)
    latent = self.bottleneck.apply(
      {"params": params["idm"]["bottleneck"]}, latent, method="readable"
    )
    if self.fdm.features == "residual" and features is None:
      features = self.features(params, first)
    return self._predict(params, first, latent, features)

  def forward(
    self, params: Params, batch: Mapping[str, jax.Array], *, key: jax.Array
  ) -> dict[str, jax.Array]:
    """Everything that the objectives read, for all pairs of neighboring frames of every clip.

    Args:
      params: as from `init`.
      batch: "frames" uint8 [B, K, H, W, 3]; "jittered" uint8 [B, K-1, H, W, 3] when Tcl is trained.
        A caller that has the tokens also gives "frame_tokens" [B, K, N+1, D], and "jittered_tokens"
        instead of "jittered" (not for "rgb_diff", which encodes other images).
      key: samples and permutes.

    Returns:
      "pixels", "target", "current" [B, P, H, W, 3] (normalized); "z" [B, P, Q*Z], and "z_reversed",
      "z_jittered" if the batch has "jittered"; "commitment", "codebook", "kl" [B, P] and "codes"
      [B, P, Q] where the bottleneck has them; "features_predicted", "features_target" [B, P, N, D]
      where the FDM predicts features. All float32 but "codes".
    """
    chex.assert_shape(batch["frames"], (None, None, self.image_size, self.image_size, 3))
    frames = self._constrain(pixels.normalize(batch["frames"]))
    size, count = frames.shape[0], frames.shape[1] - 1
    has_jittered = "jittered" in batch or "jittered_tokens" in batch
    tokens, pairs = self._pairs(params, frames, batch)
    keys = jax.random.split(key, 3)

    def flat(x: jax.Array) -> jax.Array:
      return x.reshape((x.shape[0] * x.shape[1], *x.shape[2:]))

    def grouped(x: jax.Array) -> jax.Array:
      return x.reshape((size, x.shape[0] // size, *x.shape[1:]))

    idm_params = params["idm"]
    pairs = (*pairs, self._moved(frames, batch, pairs))
    if self.tcl_gradient == "released" and has_jittered:
      main = self._queries(
        idm_params, *(None if half is None else flat(half[:, :count]) for half in pairs), keys[0]
      )
      # Stopped at the inputs, so that no backward pass of these branches is ever built.
      others = (
        None if half is None else jax.lax.stop_gradient(flat(half[:, count:])) for half in pairs
      )
      others = self._queries(jax.lax.stop_gradient(idm_params), *others, keys[1])
      seen = jax.tree.map(
        lambda *parts: flat(jnp.concatenate([grouped(part) for part in parts], axis=1)),
        main,
        others,
      )
    else:
      seen = self._queries(
        idm_params, *(None if half is None else flat(half) for half in pairs), keys[0]
      )

    motion = self._latent(params, seen, keys[2])
    z = grouped(motion.z)
    outputs = {"z": z[:, :count]}
    if has_jittered:
      outputs |= {"z_reversed": z[:, count : 2 * count], "z_jittered": z[:, 2 * count :]}
    # Only the forward pairs are reconstructed, so only they are held to the bottleneck's own terms.
    outputs |= {name: grouped(term)[:, :count] for name, term in motion.terms.items()}
    latent = flat(grouped(motion.decoded)[:, :count])
    predicted = self._predict(params, flat(frames[:, :-1]), latent, flat(tokens[:, :-1]))
    outputs |= {
      "pixels": grouped(predicted["pixels"]),
      "current": frames[:, :-1],
      "target": frames[:, 1:],
    }
    if "features" in predicted:
      outputs |= {
        "features_predicted": grouped(predicted["features"]),
        "features_target": jax.lax.stop_gradient(tokens[:, 1:, 1:]),
      }
    return outputs

  def _constrain(self, frames: jax.Array) -> jax.Array:
    return nn.with_logical_constraint(frames, ("batch", "time", *(None,) * (frames.ndim - 2)))

  def _pairs(
    self, params: Params, frames: jax.Array, batch: Mapping[str, jax.Array]
  ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Tokens of the frames, and the two halves of all pairs.

    The order of pairs is forward, reversed, jittered. Pairs lie along the second axis, never the
    first, which is sharded over devices.

    Returns:
      [B, K, N+1, D], and (first, second), each [B, P or 3P, N+1, D].
    """
    count = frames.shape[1] - 1
    difference = inputs.INPUTS[self.qformer.inputs].pixel_difference
    if "frame_tokens" in batch:
      tokens = self._constrain(batch["frame_tokens"].astype(jnp.float32))
      rest = (
        self._constrain(batch["jittered_tokens"].astype(jnp.float32))
        if "jittered_tokens" in batch
        else None
      )
      return tokens, _branches(tokens, rest, difference=False, contrastive=rest is not None)
    images = [frames]
    jittered = self._constrain(pixels.normalize(batch["jittered"])) if "jittered" in batch else None
    if difference:
      images.append(frames[:, 1:] - frames[:, :-1])
      images += (
        [] if jittered is None else [frames[:, :-1] - frames[:, 1:], jittered - frames[:, :-1]]
      )
    elif jittered is not None:
      images.append(jittered)
    everything = self.features(params, jnp.concatenate(images, axis=1))
    tokens, rest = everything[:, : count + 1], everything[:, count + 1 :]
    return tokens, _branches(tokens, rest, difference=difference, contrastive=jittered is not None)

  def _moved(
    self, frames: jax.Array, batch: Mapping[str, jax.Array], pairs: tuple[jax.Array, jax.Array]
  ) -> jax.Array | None:
    """The linear path's inputs of all pairs [B, P or 3P, G, D], or None without one.

    The order is that of `_pairs`.
    """
    if self.components is None:
      return None
    size, count = pairs[0].shape[:2]
    images = None
    if self.components.source == "flow":
      rest = None
      if count > frames.shape[1] - 1:
        if "jittered" not in batch:
          raise KeyError(
            "jittered: the flow of these pairs needs their images, not only their tokens"
          )
        rest = self._constrain(pixels.normalize(batch["jittered"]))
      images = _branches(frames, rest, difference=False, contrastive=rest is not None)
      images = tuple(half.reshape((-1, *half.shape[2:])) for half in images)
    moved = self.components.between(
      tuple(half.reshape((-1, *half.shape[2:])) for half in pairs), images
    )
    return moved.reshape((size, count, *moved.shape[1:]))

  def _queries(
    self,
    params: Params,
    first: jax.Array,
    second: jax.Array,
    moved: jax.Array | None,
    key: jax.Array | None,
  ) -> tuple[jax.Array, jax.Array | None]:
    """The bottleneck's inputs: the queries' outputs [B, Q, W] of pairs of tokens, and an offset.

    The offset [B, Q, Z] is the linear path's output for `moved` [B, G, D], or None.
    """
    key = jax.random.key(0) if key is None else key
    hidden = self.qformer.apply({"params": params["qformer"]}, first, second, key)
    if self.components is None:
      return hidden, None
    return hidden, self.components.apply({"params": params["components"]}, moved)

  def _latent(
    self, params: Params, seen: tuple[jax.Array, jax.Array | None], key: jax.Array | None
  ) -> Motion:
    hidden, offset = seen
    extra = () if offset is None else (offset,)  # VQ takes no offset
    latent = self.bottleneck.apply({"params": params["idm"]["bottleneck"]}, hidden, key, *extra)
    return Motion(einops.rearrange(latent.z, "b q d -> b (q d)"), latent.decoded, latent.terms)

  def _predict(
    self, params: Params, frames: jax.Array, latent: jax.Array, tokens: jax.Array | None
  ) -> dict[str, jax.Array]:
    features = tokens[:, 1:] if self.fdm.features == "residual" else None
    return self.fdm.apply({"params": params["fdm"]}, frames, latent, features)


def _branches(
  tokens: jax.Array, rest: jax.Array | None, *, difference: bool, contrastive: bool
) -> tuple[jax.Array, jax.Array]:
  """(first, second) of `MotionModel._pairs`.

  `rest` are the tokens of all pixel differences, or of the jittered frames.
  """
  before, after = tokens[:, :-1], tokens[:, 1:]
  if not contrastive:
    return before, rest if difference else after
  second = rest if difference else jnp.concatenate([after, before, rest], axis=1)
  return jnp.concatenate([before, after, before], axis=1), second
