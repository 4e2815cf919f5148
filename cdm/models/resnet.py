"""Defines ResNet-50, [He et al. 2016], the classifier of the CAS metric.

'v1' halves the resolution in the first 1x1 convolution of a block, as the paper
does; 'v1.5' halves it in the 3x3 convolution, as torchvision and most published
networks do. Modules have torchvision's names, with `_` in place of the dot.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cdm.models import precision

# torchvision's mean and standard deviation of ImageNet's training images on the
# scale [0, 1].
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VARIANTS = ('v1', 'v1.5')
DTYPES = ('float32', 'bfloat16')  # as a config names them
# torchvision's IMAGENET1K_V1. torchvision publishes the first digits of the
# SHA-256, in the name; all digits are those of the file as it is downloaded.
URL = 'https://download.pytorch.org/models/resnet50-0676ba61.pth'
SHA256 = '0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a'


class Output(NamedTuple):
  """The outputs of a classifier for a batch.

  Attributes:
    pool: [B, 2048] float32, the features before the last layer.
    logits: [B, K], float32.
  """

  pool: jax.Array
  logits: jax.Array


class ResNet50(nn.Module):
  """ResNet-50, from images to class logits.

  Attributes:
    num_classes: K.
    variant: 'v1' or 'v1.5', which convolution of a block halves the resolution.
    blocks: number of blocks in each stage; (3, 4, 6, 3) makes 50 layers.
    features: channels of the first convolution.
    momentum: of the running statistics; at 0 they are those of the last batch.
    dtype: of computation; normalisation and logits are float32.
  """

  num_classes: int = 1000
  variant: str = 'v1.5'
  blocks: Sequence[int] = (3, 4, 6, 3)
  features: int = 64
  momentum: float = 0.9
  dtype: Any = jnp.float32

  @nn.nowrap
  def parameter_dtype(self, name: str) -> Any:
    """Returns the dtype in which the network uses a parameter.

    Normalisations and the last layer are used in float32.

    Args:
      name: name of the parameter, such as 'layer1_0/conv1/kernel'.
    """
    is_conv = name.endswith('/kernel') and not name.startswith('fc/')
    return jnp.dtype(self.dtype if is_conv else jnp.float32)

  @nn.compact
  def __call__(self, x, *, train):
    """Classifies a batch.

    Args:
      x: [B, H, W, 3], see `normalise`.
      train: True normalises by the batch and updates the running statistics in
        the collection 'batch_stats'; False normalises by those statistics.

    Returns:
      Output.
    """
    check(self)
    conv = functools.partial(
      nn.Conv,
      use_bias=False,
      dtype=self.dtype,
      precision=precision.of(self.dtype),
      kernel_init=nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
    )
    norm = functools.partial(
      nn.BatchNorm,
      use_running_average=not train,
      momentum=self.momentum,
      epsilon=1e-5,
    )
    x = conv(self.features, (7, 7), strides=2, padding=3, name='conv1')(x)
    x = nn.relu(norm(name='bn1')(x)).astype(self.dtype)
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    self.sow('intermediates', 'maxpool', x)
    for stage, count in enumerate(self.blocks):
      for i in range(count):
        x = Bottleneck(
          features=self.features * 2**stage,
          strides=2 if stage and not i else 1,
          late=self.variant == 'v1.5',
          conv=conv,
          norm=norm,
          name=f'layer{stage + 1}_{i}',
        )(x)
      self.sow('intermediates', f'layer{stage + 1}', x)
    pool = x.astype(jnp.float32).mean(axis=(1, 2))  # [B, 2048]
    fc = nn.Dense(self.num_classes, precision=precision.HIGHEST, name='fc')
    return Output(pool, fc(pool))


def check(net: ResNet50) -> None:
  """Raises ValueError for a field that no ResNet can have; it is named."""
  if net.variant not in VARIANTS:
    raise ValueError(
      f'variant is {net.variant!r}; known are {", ".join(VARIANTS)}.'
    )
  if isinstance(net.dtype, str) and net.dtype not in DTYPES:
    raise ValueError(f'dtype is {net.dtype!r}; known are {", ".join(DTYPES)}.')
  for field in ('num_classes', 'features'):
    if getattr(net, field) < 1:
      raise ValueError(
        f'{field} is {getattr(net, field)}; it must be at least 1.'
      )
  if not net.blocks or min(net.blocks) < 1:
    raise ValueError(
      f'blocks is {tuple(net.blocks)}; give the number of blocks of each '
      'stage, at least 1.'
    )


class Bottleneck(nn.Module):
  """Three convolutions beside a shortcut."""

  features: int
  strides: int
  late: bool  # True halves in the second convolution, False in the first
  conv: Any
  norm: Any

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, C] -> [B, H', W', 4 * features]."""
    wide = 4 * self.features
    first, second = (1, self.strides) if self.late else (self.strides, 1)
    h = self.conv(self.features, (1, 1), strides=first, name='conv1')(x)
    h = nn.relu(self.norm(name='bn1')(h)).astype(x.dtype)
    h = self.conv(
      self.features, (3, 3), strides=second, padding=1, name='conv2'
    )(h)
    h = nn.relu(self.norm(name='bn2')(h)).astype(x.dtype)
    h = self.conv(wide, (1, 1), name='conv3')(h)
    # The scale starts at zero, so the block starts as its shortcut.
    h = self.norm(scale_init=nn.initializers.zeros, name='bn3')(h)
    if x.shape[-1] != wide or self.strides > 1:
      x = self.conv(wide, (1, 1), strides=self.strides, name='downsample_0')(x)
      x = self.norm(name='downsample_1')(x)
    return nn.relu(h + x).astype(self.dtype)

  @property
  def dtype(self):
    """The dtype of computation, which is that of the convolutions."""
    return self.conv.keywords['dtype']


def normalise(image: np.ndarray | jax.Array) -> jax.Array:
  """Turns uint8 or levels 0..255 [B, H, W, 3] into inputs of the network."""
  mean, std = (
    jnp.asarray(v, jnp.float32)[None, None, None] for v in (MEAN, STD)
  )
  return (jnp.asarray(image, jnp.float32) / 255.0 - mean) / std


def from_pytorch(state: dict[str, np.ndarray], net: ResNet50) -> dict:
  """Converts torchvision's file to variables of the network.

  Args:
    state: {name: array}, see `pytorch_file.read`.
    net: the `ResNet50` that the weights are for.

  Returns:
    {'params': tree, 'batch_stats': tree} of float32 arrays.

  Raises:
    ValueError: an array is missing, unknown or of another shape.
  """
  state = {
    name: value
    for name, value in state.items()
    if not name.endswith('num_batches_tracked')
  }
  variables = {}
  for path, shape in _shapes(net).items():
    collection, *modules, leaf = path
    name = '.'.join(modules).replace('_', '.')
    source = f'{name}.{_LEAVES[leaf]}'
    if source not in state:
      raise ValueError(
        f'{source} is missing: these are not the weights of a ResNet-50.'
      )
    value = np.asarray(state.pop(source), np.float32)
    if leaf == 'kernel':
      value = value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)
    if value.shape != shape:
      raise ValueError(
        f'{source} is {value.shape} in our layout; the network has {shape}.'
      )
    variables[path] = value
  if state:
    raise ValueError(
      f'The file has {len(state)} parameters that the network has no place '
      f'for, first {next(iter(state))}.'
    )
  return flax.traverse_util.unflatten_dict(variables)


_LEAVES = {
  'kernel': 'weight',
  'scale': 'weight',
  'bias': 'bias',
  'mean': 'running_mean',
  'var': 'running_var',
}


def _shapes(net: ResNet50) -> dict[tuple[str, ...], tuple[int, ...]]:
  """Returns {path of a variable: shape} without allocating variables."""
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)

  def init(key, image):
    made = net.init(key, image, train=False)
    return {name: made[name] for name in ('params', 'batch_stats')}

  tree = jax.eval_shape(init, jax.random.key(0), image)
  flat = flax.traverse_util.flatten_dict(tree)
  return {path: leaf.shape for path, leaf in flat.items()}
