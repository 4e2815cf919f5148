"""The published ResNets of CIFAR-10, from files of the published layout."""

import numpy as np
import pytest
from support import published_weights

from cdm.models import cifar_resnet
from cdm.models.pretrained import cifar_resnet as weights
from cdm.models.pretrained.damaged_weights import DamagedWeights

STATISTICS = ('weight', 'bias', 'running_mean', 'running_var')


def state(blocks=2, prefix=''):
  """-> arrays by PyTorch's names; every convolution copies its input.

  Normalisation halves them: gamma / sqrt(4 - eps + eps) = 1 / 2.
  """
  arrays, channels = {}, 3
  shapes = [('conv1', 'bn1', 16)]
  for level, width in enumerate((16, 32, 64), 1):
    for i in range(blocks):
      for n in (1, 2):
        name = f'layer{level}.{i}'
        shapes.append((f'{name}.conv{n}', f'{name}.bn{n}', width))
  for conv, norm, width in shapes:
    kernel = np.zeros((width, channels, 3, 3), np.float32)
    kernel[range(width), [k % channels for k in range(width)], 1, 1] = 1
    arrays[f'{prefix}{conv}.weight'] = kernel
    ones = np.ones(width, np.float32)
    values = (ones, 0 * ones, 0 * ones, (4 - weights.EPSILON) * ones)
    for part, value in zip(STATISTICS, values, strict=True):
      arrays[f'{prefix}{norm}.{part}'] = value
    channels = width
  arrays[f'{prefix}linear.weight'] = np.ones((10, 64), np.float32)
  arrays[f'{prefix}linear.bias'] = np.arange(10, dtype=np.float32)
  return arrays


def test_the_network_is_that_of_the_paper():
  """In closed form: a constant image stays constant in the middle."""
  blocks, params = weights.from_pytorch(state())
  assert blocks == 2
  net = cifar_resnet.CifarResNet(blocks)
  level = 255 * np.array(cifar_resnet.MEAN) + 51 * np.array(cifar_resnet.STD)
  found = net.apply(
    {'params': params}, np.full((1, 32, 32, 3), level, np.float32)
  )
  # (x - mean) / std is 0.2; conv1 halves it; a block adds a quarter. A wider
  # level copies the channels, and its shortcut adds zeros on both sides.
  x = np.full(16, 0.1)
  for width in (16, 32, 64):
    for _ in range(blocks):
      more = (width - len(x)) // 2
      x = np.pad(x, more) + np.resize(x, width) / 4
  np.testing.assert_allclose(found.pool[0], x, rtol=1e-5)
  np.testing.assert_allclose(
    found.logits[0], x.sum() + np.arange(10), rtol=1e-5
  )


@pytest.mark.parametrize('form', ['npz', 'th'])
def test_both_forms_of_the_file_are_read(tmp_path, form):
  path = tmp_path / f'resnet14.{form}'
  if form == 'npz':
    np.savez(path, **state())
  else:
    published_weights.write_pytorch(path, state(prefix='module.'), zipped=True)
  blocks, params = weights.read(path)
  _, expected = weights.from_pytorch(state())
  assert blocks == 2 and list(params) == list(expected)
  for name, part in expected.items():
    for leaf, value in part.items():
      np.testing.assert_array_equal(params[name][leaf], value)


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda a: a.pop('layer2.0.bn1.bias'), 'layer2.0.bn1.bias is missing'),
    (lambda a: a.update(more=a['bn1.bias']), '1 parameters that the network'),
    (
      lambda a: a.update({'bn1.bias': np.zeros(3, np.float32)}),
      r'bn1.bias is \(3,\), or not finite; \(16,\) was expected',
    ),
    (
      lambda a: a.update({'bn1.bias': np.full(16, np.nan, np.float32)}),
      'or not finite',
    ),
    (lambda a: a.clear(), 'these are not the weights of a ResNet for CIFAR-10'),
  ],
)
def test_another_network_is_refused_by_name(tmp_path, change, words):
  arrays = state()
  change(arrays)
  np.savez(tmp_path / 'w.npz', **arrays)
  with pytest.raises(DamagedWeights, match=words):
    weights.read(tmp_path / 'w.npz')


def test_a_file_that_is_cut_off_ends_in_a_sentence(tmp_path):
  path = tmp_path / 'w.npz'
  np.savez(path, **state())
  path.write_bytes(path.read_bytes()[:-200])
  with pytest.raises(DamagedWeights, match='cannot be read as an .npz'):
    weights.read(path)


def test_an_image_is_cut_into_squares():
  image = np.arange(2 * 64 * 32 * 3, dtype=np.float32).reshape(2, 64, 32, 3)
  found = cifar_resnet.squares(image)
  np.testing.assert_array_equal(found[:, 0], image[:, :32])
  np.testing.assert_array_equal(found[:, 1], image[:, 32:])
  with pytest.raises(ValueError, match='32x48 pixels cannot be cut'):
    cifar_resnet.squares(image[:, :48])
