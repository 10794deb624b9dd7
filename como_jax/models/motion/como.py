"""The motion model: frozen encoder, inverse dynamics with its bottleneck, forward dynamics.

Legend: B batch, K frames of a window, P pairs (K-1), H W image, N patches, D width of the encoder,
Q queries, S width of the queries, Z latent dimensions per query, G groups of patches of the linear
path.
Source: CoMo, arXiv 2505.17006.

Each frame of a window is encoded once, and all pairs are formed from its tokens: forward (a
frame and the next), and when Tcl (temporal contrastive learning) is trained also reversed (the same
two, in the other order) and jittered (the first, and a frame near the second). So 4 frames give 3
forward and 3 reversed pairs for 4 passes of the encoder; the 3 jittered frames cost 3 more.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import einops
import jax
import jax.numpy as jnp

from como_jax.models import modules, pixels, specs
from como_jax.models.backbones import mae_vit
from como_jax.models.modules import Params
from como_jax.models.motion import bottleneck as bottleneck_lib
from como_jax.models.motion import fdm as fdm_lib
from como_jax.models.motion import idm, inputs
from como_jax.models.motion import pairs as pairs_lib
from como_jax.models.motion.linear_path import LinearPath

TCL_GRADIENTS = ("all", "released")


class Motion(NamedTuple):
  """Result of `encode`.

  Attributes:
    z: [B, Q*Z], float32: the latent motion; as a label, the pseudo-action.
    decoder_input: [B, Q, Z]: what the forward dynamics model reads in training (z, or its quantized
      or sampled version).
    terms: "commitment", "codebook", "kl" [B] and "codes" int32 [B, Q] where the bottleneck has
      them.
  """

  z: jax.Array
  decoder_input: jax.Array
  terms: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class MotionModel:
  """The modules of the motion model and what is computed with them; see `models.build`.

  Frames are float32, ImageNet-normalized; in a batch they are uint8.

  Attributes:
    config: the model section it was built from. A key such as model.fdm.width is the argument of
      that name of the module; `models.build` refuses any other key, with the nearest name.
    encoder: encodes frames; frozen.
    qformer: reads pairs of frames.
    bottleneck: from the Q-former's outputs to the latent.
    fdm: the forward dynamics model.
    tcl_gradient: "all" trains everything through all three kinds of pairs (as in the paper).
      "released" (as in the authors' code) runs the Q-former without gradient on the jittered and
      reversed pairs, which then train only the bottleneck's projection to Z.
    frozen: patterns of parameter names that are not trained; config.train.frozen replaces them.
    linear_path: the linear path to z, None where it is off.
  """

  config: dict[str, Any]
  encoder: mae_vit.Encoder
  qformer: idm.QFormer
  bottleneck: bottleneck_lib.Bottleneck
  fdm: fdm_lib.FDM
  tcl_gradient: str
  frozen: tuple[str, ...] = (r"encoder/.*",)
  linear_path: LinearPath | None = None

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
    """Fresh float32 parameters, drawn with `key`; the encoder's in its `param_dtype`.

    Returns:
      {"encoder", "idm": {"qformer", "bottleneck"}, "fdm"}; "idm" also has "components" where the
      linear path is on.
    """
    keys = jax.random.split(key, 4)
    image = jnp.zeros((1, self.image_size, self.image_size, 3))
    tokens = jnp.zeros((1, self.qformer.num_patches + 1, self.fdm.features_width))
    latent = jnp.zeros((1, *dataclasses.astuple(self.latent)))
    hidden = jnp.zeros((1, self.qformer.num_queries, self.qformer.stack.width))
    linear = (
      {}
      if self.linear_path is None
      else {
        "components": self.linear_path.init(
          jax.random.fold_in(keys[1], 1),
          self.linear_path.differences((tokens, tokens), (image, image)),
        )["params"]
      }
    )
    encoder = self.encoder.init(keys[0], image)["params"]
    return {
      "encoder": mae_vit.stored(self.encoder, encoder),
      "idm": {
        "qformer": self.qformer.init(keys[1], tokens, tokens, keys[1])["params"],
        "bottleneck": self.bottleneck.init(keys[2], hidden, None)["params"],
        **linear,
      },
      "fdm": self.fdm.init(keys[3], image, latent, tokens[:, 1:])["params"],
    }

  def encode_frames(self, params: Params, frames: jax.Array) -> jax.Array:
    """All tokens of `frames`: [..., H, W, 3] -> [..., N+1, D], CLS first, float32."""
    chex.assert_shape(frames, (..., self.image_size, self.image_size, 3))
    flat = frames.reshape((-1, *frames.shape[-3:]))
    tokens = modules.apply(self.encoder, params["encoder"], flat)
    return tokens.reshape((*frames.shape[:-3], *tokens.shape[-2:]))

  def encode_images(self, params: Params, images: jax.Array) -> jax.Array:
    """Tokens of `images` as they come in a batch: uint8 [..., H, W, 3] -> [..., N+1, D]."""
    return self.encode_frames(params, pixels.normalize(images))

  def encode(
    self,
    params: Params,
    first: jax.Array,
    second: jax.Array,
    *,
    tokens: tuple[jax.Array, jax.Array] | None = None,
    key: jax.Array | None = None,
  ) -> Motion:
    """Two frames -> the motion between them.

    Args:
      params: as from `init`.
      first: [B, H, W, 3].
      second: [B, H, W, 3].
      tokens: of first and second, each [B, N+1, D], if the caller has them. With inputs "rgb_diff"
        tokens[1] is ignored: the difference of the frames is encoded.
      key: samples the latent (KL) and permutes patches (patch_order "shuffled"). None for labels:
        no sample, one fixed permutation.
    """
    chex.assert_shape([first, second], (None, self.image_size, self.image_size, 3))
    if inputs.INPUTS[self.qformer.inputs].pixel_difference:
      pair = (
        self.encode_frames(params, first) if tokens is None else tokens[0],
        self.encode_frames(params, second - first),
      )
    elif tokens is None:
      both = self.encode_frames(params, jnp.stack([first, second], axis=1))
      pair = both[:, 0], both[:, 1]
    else:
      pair = tokens
    path_inputs = (
      None if self.linear_path is None else self.linear_path.differences(pair, (first, second))
    )
    return self._latent(
      params, self._queries(params["idm"], pairs_lib.Pairs(*pair, path_inputs), key), key
    )

  def differences(self, params: Params, frames: jax.Array) -> jax.Array:
    """The linear path's inputs of neighboring frames: windows [B, K, H, W, 3] -> [B*(K-1), G, D].

    Raises:
      ValueError: the model has no linear path.
    """
    if self.linear_path is None:
      raise ValueError("the model has no linear path (model.idm.components is 0)")
    tokens = self.encode_frames(params, frames)

    def neighbors(x: jax.Array) -> tuple[jax.Array, jax.Array]:
      before, after = x[:, :-1], x[:, 1:]
      return pairs_lib.flatten_pairs(before), pairs_lib.flatten_pairs(after)

    return self.linear_path.differences(neighbors(tokens), neighbors(frames))

  def decode(
    self, params: Params, first: jax.Array, z: jax.Array, *, tokens: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """First frame and latent motion -> the second frame.

    Args:
      params: as from `init`.
      first: [B, H, W, 3].
      z: [B, Q*Z] as from `encode`; a model with codes (VQ) decodes the nearest ones.
      tokens: of the first frame, [B, N+1, D], if the caller has them.

    Returns:
      "pixels" [B, H, W, 3], and "features" [B, N, D] if configured.
    """
    chex.assert_shape(z, (first.shape[0], self.latent.size))
    latent = einops.rearrange(z, "b (q d) -> b q d", q=self.latent.num_queries)
    latent = modules.apply(self.bottleneck.to_decoder_input, params["idm"]["bottleneck"], latent)
    if self.fdm.features == "residual" and tokens is None:
      tokens = self.encode_frames(params, first)
    return self._predict(params, first, latent, tokens)

  def forward(
    self, params: Params, batch: Mapping[str, jax.Array], *, key: jax.Array
  ) -> dict[str, jax.Array]:
    """Everything that the objectives read, for all pairs of neighboring frames of every window.

    Args:
      params: as from `init`.
      batch: "frames" uint8 [B, K, H, W, 3]; "jittered" uint8 [B, K-1, H, W, 3] when Tcl is trained.
        A caller that has the tokens also gives "frame_tokens" [B, K, N+1, D], and "jittered_tokens"
        instead of "jittered" (not with inputs "rgb_diff", which encodes what the frames differ by).
        "drawn" int [E, M]: the pairs that Tcl reads (see pairs.py); without it, it reads all.
      key: samples and permutes.

    Returns:
      "pixels", "target", "current" [B, P, H, W, 3] (normalized); "z" [B, P, Q*Z], and "z_reversed",
      "z_jittered" if the batch has "jittered" (of drawn pairs: [E, M, Q*Z]); "commitment",
      "codebook", "kl" [B, P] and "codes" [B, P, Q] where the bottleneck has them;
      "features_predicted", "features_target" [B, P, N, D] where the FDM predicts features. All
      float32 but "codes".
    """
    chex.assert_shape(batch["frames"], (None, None, self.image_size, self.image_size, 3))
    frames = pairs_lib.constrain_frames(pixels.normalize(batch["frames"]))  # split over the mesh
    size = frames.shape[0]
    tokens, pairs = self._pairs(params, batch, frames)
    keys = jax.random.split(key, 3)
    # rows of the arrays of pairs (B, or fewer where Tcl reads drawn pairs), forward pairs of each
    runs = pairs.first.shape[0]
    count = size * (frames.shape[1] - 1) // runs

    unflatten = functools.partial(
      pairs_lib.unflatten_pairs, batch_size=size
    )  # [B*P, ...] -> [B, P, ...]

    def forward_pairs(x: jax.Array) -> jax.Array:
      return pairs_lib.regroup_pairs(pairs_lib.unflatten_pairs(x, runs)[:, :count], size)

    contrastive = pairs_lib.is_contrastive(batch)
    if self.tcl_gradient == "released" and contrastive:
      latent_inputs = self._released_queries(params["idm"], pairs, count, keys[0], keys[1])
    else:
      latent_inputs = self._queries(
        params["idm"], jax.tree.map(pairs_lib.flatten_pairs, pairs), keys[0]
      )
    motion = self._latent(params, latent_inputs, keys[2])
    # along the second axis: forward, reversed, jittered pairs
    z = pairs_lib.unflatten_pairs(motion.z, runs)
    outputs = {"z": pairs_lib.regroup_pairs(z[:, :count], size)}
    if contrastive:
      middle = (count + z.shape[1]) // 2
      outputs |= {"z_reversed": z[:, count:middle], "z_jittered": z[:, middle:]}
    # Only the forward pairs are reconstructed, so only they have losses of the bottleneck.
    outputs |= {name: forward_pairs(term) for name, term in motion.terms.items()}
    latent = pairs_lib.flatten_pairs(forward_pairs(motion.decoder_input))
    predicted = self._predict(
      params,
      pairs_lib.flatten_pairs(frames[:, :-1]),
      latent,
      pairs_lib.flatten_pairs(tokens[:, :-1]),
    )
    outputs |= {
      "pixels": unflatten(predicted["pixels"]),
      "current": frames[:, :-1],
      "target": frames[:, 1:],
    }
    if "features" in predicted:
      outputs |= {
        "features_predicted": unflatten(predicted["features"]),
        "features_target": jax.lax.stop_gradient(tokens[:, 1:, 1:]),  # second frames, no CLS
      }
    return outputs

  def _pairs(
    self, params: Params, batch: Mapping[str, jax.Array], frames: jax.Array
  ) -> tuple[jax.Array, pairs_lib.Pairs]:
    """Tokens [B, K, N+1, D] of the normalized frames of a batch, and all its pairs."""
    tokens, first_and_second = pairs_lib.encode_pairs(
      batch,
      frames,
      lambda images: self.encode_frames(params, images),
      pixel_difference=inputs.INPUTS[self.qformer.inputs].pixel_difference,
    )
    path_inputs = pairs_lib.path_inputs(self.linear_path, batch, frames, first_and_second)
    return tokens, pairs_lib.Pairs(*first_and_second, path_inputs)

  def _released_queries(
    self, params: Params, pairs: pairs_lib.Pairs, count: int, key: jax.Array, stopped_key: jax.Array
  ) -> tuple[jax.Array, jax.Array | None]:
    """`_queries` of all pairs, without a gradient through the pairs after the first `count`.

    Args:
      params: of the inverse dynamics model.
      pairs: forward, reversed and jittered.
      count: number of forward pairs of a window.
      key: of the forward pairs.
      stopped_key: of the others.
    """
    unflatten = functools.partial(pairs_lib.unflatten_pairs, batch_size=pairs.first.shape[0])
    main = jax.tree.map(lambda x: pairs_lib.flatten_pairs(x[:, :count]), pairs)
    main = self._queries(params, main, key)
    # Stopped at the inputs, so that no backward pass of these pairs is built at all.
    others = jax.tree.map(
      lambda x: jax.lax.stop_gradient(pairs_lib.flatten_pairs(x[:, count:])), pairs
    )
    others = self._queries(jax.lax.stop_gradient(params), others, stopped_key)
    return jax.tree.map(
      lambda *parts: pairs_lib.flatten_pairs(
        jnp.concatenate([unflatten(part) for part in parts], axis=1)
      ),
      main,
      others,
    )

  def _queries(
    self, params: Params, pairs: pairs_lib.Pairs, key: jax.Array | None
  ) -> tuple[jax.Array, jax.Array | None]:
    """The bottleneck's inputs for B pairs: the queries' outputs [B, Q, S], and an offset.

    The offset [B, Q, Z] is the linear path's output, or None.
    """
    key = jax.random.key(0) if key is None else key
    hidden = modules.apply(self.qformer, params["qformer"], pairs.first, pairs.second, key)
    if self.linear_path is None or pairs.path_inputs is None:
      return hidden, None
    return hidden, modules.apply(self.linear_path, params["components"], pairs.path_inputs)

  def _latent(
    self, params: Params, latent_inputs: tuple[jax.Array, jax.Array | None], key: jax.Array | None
  ) -> Motion:
    hidden, offset = latent_inputs
    extra = () if offset is None else (offset,)  # VQ takes no offset
    latent = modules.apply(self.bottleneck, params["idm"]["bottleneck"], hidden, key, *extra)
    return Motion(
      einops.rearrange(latent.z, "b q d -> b (q d)"), latent.decoder_input, latent.terms
    )

  def _predict(
    self, params: Params, frames: jax.Array, latent: jax.Array, tokens: jax.Array | None
  ) -> dict[str, jax.Array]:
    residual = self.fdm.features == "residual"
    features = tokens[:, 1:] if residual and tokens is not None else None
    return modules.apply(self.fdm, params["fdm"], frames, latent, features)
