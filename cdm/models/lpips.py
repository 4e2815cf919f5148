"""Computes LPIPS v0.1, a learned perceptual distance, [Zhang et al. 2018].

  d(a, b) = sum over layers, mean over pixels, of w . (f_a - f_b)^2

Here f are the features of a classifier, normalised to length one in every
pixel, and w >= 0 are weights learned per channel. The backbones are
torchvision's; their features are read after chosen ReLUs.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
PRECISION = jax.lax.Precision.HIGHEST
# torchvision's files.
BACKBONE_URLS = {
  'alex': 'https://download.pytorch.org/models/alexnet-owt-7be5be79.pth',
  'vgg': 'https://download.pytorch.org/models/vgg16-397923af.pth',
  'squeeze': 'https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth',
}
# torchvision publishes the first digits, in the names; all digits are those of
# the files as they are downloaded, and stand in many public projects.
BACKBONE_SHA256 = {
  'alex': '7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02',
  'vgg': '397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0',
  'squeeze': 'b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b',
}
# The heads (the weights w) from the authors' package, version 0.1.
HEAD_URL = (
  'https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/'
  'lpips/weights/v0.1/{backbone}.pth'
)
HEAD_SHA256 = {
  'alex': 'df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0',
  'vgg': 'a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868',
  'squeeze': '4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76',
}
# The layers of each backbone, with torchvision's indices: ('conv', index,
# features, size, strides, padding), ('fire', index, squeezed, expanded),
# ('pool', size, rounds up). Features are read at every 'tap'.
_CONV3 = (3, 1, 1)
BACKBONES = {
  'alex': (
    *(('conv', 0, 64, 11, 4, 2), 'tap', ('pool', 3, False)),
    *(('conv', 3, 192, 5, 1, 2), 'tap', ('pool', 3, False)),
    *(('conv', 6, 384, *_CONV3), 'tap', ('conv', 8, 256, *_CONV3), 'tap'),
    *(('conv', 10, 256, *_CONV3), 'tap'),
  ),
  'vgg': (
    *(('conv', 0, 64, *_CONV3), ('conv', 2, 64, *_CONV3), 'tap'),
    *(('pool', 2, False), ('conv', 5, 128, *_CONV3)),
    *(('conv', 7, 128, *_CONV3), 'tap', ('pool', 2, False)),
    *(('conv', 10, 256, *_CONV3), ('conv', 12, 256, *_CONV3)),
    *(('conv', 14, 256, *_CONV3), 'tap', ('pool', 2, False)),
    *(('conv', 17, 512, *_CONV3), ('conv', 19, 512, *_CONV3)),
    *(('conv', 21, 512, *_CONV3), 'tap', ('pool', 2, False)),
    *(('conv', 24, 512, *_CONV3), ('conv', 26, 512, *_CONV3)),
    *(('conv', 28, 512, *_CONV3), 'tap'),
  ),
  'squeeze': (
    *(('conv', 0, 64, 3, 2, 0), 'tap', ('pool', 3, True)),
    *(('fire', 3, 16, 64), ('fire', 4, 16, 64), 'tap', ('pool', 3, True)),
    *(('fire', 6, 32, 128), ('fire', 7, 32, 128), 'tap', ('pool', 3, True)),
    *(('fire', 9, 48, 192), 'tap', ('fire', 10, 48, 192), 'tap'),
    *(('fire', 11, 64, 256), 'tap', ('fire', 12, 64, 256), 'tap'),
  ),
}


class Lpips(nn.Module):
  """LPIPS, from pairs of images to distances.

  Attributes:
    backbone: 'alex', 'vgg' or 'squeeze'.
  """

  backbone: str = 'alex'

  @nn.compact
  def __call__(self, a, b):
    """Compares images.

    Args:
      a, b: uint8 or levels 0..255 [B, H, W, 3].

    Returns:
      [B, L], the distance at each of the L taps; LPIPS is their sum.
    """
    if self.backbone not in BACKBONES:
      raise ValueError(
        f'The backbone is {self.backbone!r}; known are {", ".join(BACKBONES)}.'
      )
    stack = Stack(BACKBONES[self.backbone], name='features')
    parts = []
    taps = zip(stack(_scaled(a)), stack(_scaled(b)), strict=True)
    for i, (f_a, f_b) in enumerate(taps):
      difference = (_unit(f_a) - _unit(f_b)) ** 2
      weight = self.param(
        f'lin{i}', nn.initializers.ones, (difference.shape[-1],)
      )
      distance = jnp.einsum(
        'bhwc,c->bhw', difference, weight, precision=PRECISION
      )
      parts.append(distance.mean(axis=(1, 2)))
    return jnp.stack(parts, axis=1)


class Stack(nn.Module):
  """A backbone, from images to the feature maps at its taps."""

  layers: Sequence

  @nn.compact
  def __call__(self, x):
    """x: [B, H, W, 3] -> [[B, h, w, c], ...]."""
    taps = []
    for layer in self.layers:
      if layer == 'tap':
        taps.append(x)
      elif layer[0] == 'pool':
        x = _pool(x, *layer[1:])
      elif layer[0] == 'conv':
        _, number, features, size, strides, padding = layer
        x = _conv(features, size, f'{number}', strides, padding)(x)
        x = nn.relu(x)
      else:
        _, number, squeezed, expanded = layer
        x = nn.relu(_conv(squeezed, 1, f'{number}_squeeze')(x))
        one = _conv(expanded, 1, f'{number}_expand1x1')(x)
        three = _conv(expanded, 3, f'{number}_expand3x3', padding=1)(x)
        x = nn.relu(jnp.concatenate([one, three], axis=-1))
    return taps


def from_pytorch(
  backbone: Mapping[str, np.ndarray],
  heads: Mapping[str, np.ndarray],
  net: Lpips,
) -> dict:
  """Converts torchvision's file of a backbone and LPIPS's file of its heads.

  Args:
    backbone: {name: array} of torchvision's classifier, or of LPIPS itself.
    heads: {name: array} of LPIPS's file `v0.1/NET.pth`.
    net: the `Lpips` that the weights are for.

  Returns:
    The parameters as nested dicts of float32 arrays; apply them as
    `{'params': parameters}`.

  Raises:
    ValueError: a parameter is missing or of another shape.
  """
  what = f'LPIPS with {net.backbone}'
  features = _features(backbone)
  params = {}
  for path, shape in _shapes(net).items():
    if path[0] == 'features':
      params[path] = _backbone_array(features, path[1:], shape, what)
    else:
      name = f'{path[0]}.model.1.weight'
      value = _named(heads, name, what).reshape(-1)
      params[path] = _of_shape(value, shape, name, what)
  return flax.traverse_util.unflatten_dict(params)


class FeatureMap(NamedTuple):
  """One feature map of a backbone, as a function of images.

  Attributes:
    stack: a `Stack`, the network up to the map.
    params: its parameters, see `read_feature_map`.
  """

  stack: Any
  params: dict

  def __call__(self, image: jax.Array) -> jax.Array:
    """image: [B, H, W, 3] in [-1, 1] -> [B, h, w, c]."""
    x = _scaled((image + 1.0) * 127.5)
    return self.stack.apply({'params': self.params}, x)[-1]


def read_feature_map(
  state: Mapping[str, np.ndarray], backbone: str, layer: int
) -> FeatureMap:
  """Makes a feature map from torchvision's file of a classifier.

  Args:
    state: {name: array} of the file.
    backbone: 'alex', 'vgg' or 'squeeze'.
    layer: which of the maps that LPIPS reads, from 1 on.

  Raises:
    ValueError: a parameter is missing or of another shape.
  """
  layers = BACKBONES[backbone]
  taps = [i for i, one in enumerate(layers) if one == 'tap']
  stack = Stack(layers[: taps[layer - 1] + 1])
  features, params = _features(state), {}
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
  tree = jax.eval_shape(stack.init, jax.random.key(0), image)['params']
  for path, leaf in flax.traverse_util.flatten_dict(tree).items():
    params[path] = _backbone_array(features, path, leaf.shape, backbone)
  return FeatureMap(stack, flax.traverse_util.unflatten_dict(params))


def _features(state):
  """Returns the convolutions of a classifier's file, without their prefix."""
  features = {}
  for name, value in state.items():
    match = re.fullmatch(r'(?:features|net\.slice\d+)\.(.+)', name)
    if match:
      features[match[1]] = value
  return features


def _backbone_array(features, path, shape, what):
  """Returns the array of a parameter of a `Stack`, in our layout."""
  leaf = 'weight' if path[-1] == 'kernel' else 'bias'
  name = f'{path[0].replace("_", ".")}.{leaf}'
  value = _named(features, name, what)
  if path[-1] == 'kernel':
    value = value.transpose(2, 3, 1, 0)
  return _of_shape(value, shape, name, what)


def _named(source, name, what):
  if name not in source:
    raise ValueError(f'{name} is missing: these are not the weights of {what}.')
  return np.asarray(source[name], np.float32)


def _of_shape(value, shape, name, what):
  if value.shape != shape:
    raise ValueError(
      f'{name} is {value.shape} in our layout; {what} has {shape}.'
    )
  return value


def _shapes(net: Lpips) -> dict[tuple[str, ...], tuple[int, ...]]:
  """Returns {path of a parameter: shape} without allocating parameters."""
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8)
  tree = jax.eval_shape(net.init, jax.random.key(0), image, image)
  flat = flax.traverse_util.flatten_dict(tree['params'])
  return {path: leaf.shape for path, leaf in flat.items()}


def _conv(features, size, name, strides=1, padding=0):
  return nn.Conv(
    features,
    (size, size),
    strides=strides,
    padding=padding,
    precision=PRECISION,
    name=name,
  )


def _pool(x, size, rounds_up):
  """Pools by maximum with stride 2; `rounds_up` adds windows over the edge."""
  over = [(n - size) % 2 if rounds_up else 0 for n in x.shape[1:3]]
  padding = tuple((0, extra) for extra in over)
  return nn.max_pool(x, (size, size), strides=(2, 2), padding=padding)


def _scaled(image):
  shift, scale = (
    jnp.asarray(v, jnp.float32)[None, None, None] for v in (SHIFT, SCALE)
  )
  return (jnp.asarray(image, jnp.float32) / 127.5 - 1.0 - shift) / scale


def _unit(x):
  """Scales the features of every pixel to length one."""
  return x / (jnp.sqrt((x * x).sum(axis=-1, keepdims=True)) + 1e-10)
