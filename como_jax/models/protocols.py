"""What the models and action heads offer, for annotations where one is passed.

Legend: B batch, K frames of a clip or action horizon, M motion horizon, H W image, N patches, D
width of the encoder, A action dims, Z size of a motion.

`models.build` makes the models: `motion.como.MotionModel` and `policy.policy.PolicyModel`, whose
docstrings say more. The action heads are `policy.dit.DiT` and `policy.gpt.GPT`; the output heads of
GPT are those of `policy.outputs`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax

from como_jax.models import specs
from como_jax.models.modules import Params
from como_jax.models.policy.projections import EmbodimentProjections
from como_jax.models.policy.trunk import Context

Batch = Mapping[str, jax.Array]
# (name of a linear layer of the robot, its input) -> its output.
Linear = Callable[[str, jax.Array], jax.Array]
# Term -> (sum over valid elements, number of them).
Terms = dict[str, tuple[jax.Array, jax.Array]]


class Model(Protocol):
  """What every model has."""

  @property
  def config(self) -> dict[str, Any]:
    """The section model that it was built from."""
    ...

  @property
  def frozen(self) -> tuple[str, ...]:
    """Patterns of parameter names that are not trained unless the config says otherwise."""
    ...

  def init(self, key: jax.Array) -> dict[str, Any]:
    """Fresh float32 parameters, drawn with `key`."""
    ...


class Motion(Protocol):
  """What a motion model makes of two frames."""

  @property
  def z(self) -> jax.Array:
    """The label, float32 [B, Z]."""
    ...


class MotionModel(Model, Protocol):
  """The motion model: two frames -> the motion between them, and back."""

  @property
  def image_size(self) -> int:
    """H = W."""
    ...

  @property
  def latent(self) -> specs.LatentSpec:
    """The shape of a motion; its `size` is Z."""
    ...

  def inputs_spec(
    self, batch_size: int, frames: int = 2, *, jittered: bool = False
  ) -> dict[str, jax.ShapeDtypeStruct]:
    """What `forward` reads, for `batch_size` clips of `frames` frames."""
    ...

  def encode_frames(self, params: Params, frames: jax.Array) -> jax.Array:
    """Tokens of normalized frames: [..., H, W, 3] -> [..., N+1, D], float32."""
    ...

  def encode_images(self, params: Params, images: jax.Array) -> jax.Array:
    """Tokens of images uint8 [..., H, W, 3], as `encode_frames`."""
    ...

  def encode(
    self,
    params: Params,
    first: jax.Array,
    second: jax.Array,
    *,
    tokens: tuple[jax.Array, jax.Array] | None = None,
    key: jax.Array | None = None,
  ) -> Motion:
    """Normalized frames [B, H, W, 3] -> the motion between them."""
    ...

  def decode(
    self, params: Params, first: jax.Array, z: jax.Array, *, tokens: jax.Array | None = None
  ) -> dict[str, jax.Array]:
    """The first frame and a label [B, Z] -> the second frame."""
    ...

  def forward(self, params: Params, batch: Batch, *, key: jax.Array) -> dict[str, jax.Array]:
    """Everything that the objectives read."""
    ...


class ActionHead(Protocol):
  """The part of a policy that turns context tokens into actions and motions."""

  @property
  def projections(self) -> EmbodimentProjections:
    """Linear layers of the robots and of latent motion."""
    ...

  @property
  def supports_guidance(self) -> bool:
    """Whether a `guidance_scale` other than 1 is possible."""
    ...

  def init(self, key: jax.Array, context: Context) -> dict[str, Any]:
    """Fresh parameters, drawn with `key`, for contexts of the shape of `context`."""
    ...

  def losses(
    self, params: Params, projection_params: Params, context: Context, batch: Batch, key: jax.Array
  ) -> Terms:
    """The terms of the loss.

    Args:
      params: as from `init`.
      projection_params: as from `EmbodimentProjections.init`.
      context: of the observations.
      batch: as for `PolicyModel.losses`.
      key: of all random numbers.
    """
    ...

  def sample(
    self,
    params: Params,
    projection_params: Params,
    contexts: list[Context],
    key: jax.Array,
    options: specs.SampleOptions,
  ) -> jax.Array:
    """Samples actions or motions.

    Args:
      params: as from `init`.
      projection_params: as from `EmbodimentProjections.init`.
      contexts: with the instruction and, for guidance, without it.
      key: of the noise.
      options: what is sampled, and how.

    Returns:
      float32 [B, K, A of the robot] or [B, M, Z].
    """
    ...


class OutputHead(Protocol):
  """What turns the hidden vector of a token of GPT into values; `outputs.Regression` says more."""

  @property
  def zero(self) -> bool:
    """Whether the layer "decode" starts at zero."""
    ...

  def layers(self, width: int, dims: int) -> dict[str, tuple[int, int]]:
    """The linear layers of a robot: {name: (input size, output size)}."""
    ...

  def init(self, key: jax.Array, width: int) -> dict[str, Any]:
    """The parameters that all robots share; {} without any."""
    ...

  def loss(
    self, params: Params, linear: Linear, hidden: jax.Array, target: jax.Array, key: jax.Array
  ) -> jax.Array:
    """The error of each value [B, ..., d]."""
    ...

  def sample(
    self,
    params: Params,
    linear: Linear,
    hidden: jax.Array,
    key: jax.Array,
    *,
    dims: int,
    num_sampling_steps: int,
  ) -> jax.Array:
    """The values of tokens [B, ..., d]."""
    ...


class PolicyModel(Model, Protocol):
  """The policy: observation and instruction -> chunks of actions and of latent motion."""

  @property
  def kind(self) -> str:
    """Name of the action head's parameters."""
    ...

  @property
  def action_head(self) -> ActionHead:
    """From context tokens to actions and motions."""
    ...

  @property
  def robots(self) -> tuple[str, ...]:
    """Names of the robots; `batch["robot"]` is an index into them."""
    ...

  @property
  def image_size(self) -> int:
    """H = W."""
    ...

  @property
  def action_horizon(self) -> int:
    """K."""
    ...

  @property
  def motion_horizon(self) -> int:
    """M."""
    ...

  @property
  def latent(self) -> specs.LatentSpec:
    """The shape of a motion; its `size` is Z."""
    ...

  @property
  def terms(self) -> tuple[str, ...]:
    """Names of the terms that `losses` returns."""
    ...

  def inputs_spec(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What `losses` reads, for `batch_size` examples."""
    ...

  def encode_images(self, params: Params, images: jax.Array) -> jax.Array:
    """Tokens of images uint8 [B, T, C, H, W, 3], float32."""
    ...

  def losses(self, params: Params, batch: Batch, key: jax.Array) -> Terms:
    """The terms of the loss."""
    ...

  def sample(
    self,
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    robot: str,
    num_sampling_steps: int | None = None,
    guidance_scale: float = 1.0,
  ) -> jax.Array:
    """Actions of one robot, float32 [B, K, A of the robot]."""
    ...

  def sample_latents(
    self,
    params: Params,
    batch: Batch,
    key: jax.Array,
    *,
    num_sampling_steps: int | None = None,
    guidance_scale: float = 1.0,
  ) -> jax.Array:
    """Future motions, float32 [B, M, Z]."""
    ...
