"""The PixelCNN sees what comes before a sub-pixel, all of it, and no more."""

import jax
import jax.numpy as jnp
import numpy as np

from cdm.models.pixelcnn import PixelCNN, colours, unit_scaled
from cdm.ops import pixels


def perturbed(params, scale=0.3):
  """-> parameters off the zeros that the logits begin with."""
  rng = np.random.default_rng(7)
  return jax.tree.map(
    lambda x: x + scale * rng.normal(size=x.shape).astype(np.float32), params
  )


def test_a_sub_pixel_sees_every_earlier_one_and_no_later_one():
  """Exactly: the Jacobian of the logits is strictly lower triangular.

  Two gated layers reach 3 + 2 * 2 pixels, over the whole picture, so that a
  blind spot would show as a zero below the diagonal.
  """
  height, width = 5, 7
  net = PixelCNN(features=10, num_layers=2, hidden_features=31)
  levels = jax.random.uniform(jax.random.key(0), (1, height, width, 3)) * 255
  params = perturbed(jax.jit(net.init)(jax.random.key(1), levels))
  weights = jax.random.normal(jax.random.key(2), (256,))

  def summed(x):
    logits = net.apply(params, x.reshape(levels.shape))
    return (logits @ weights).ravel()  # [3 H W]

  jacobian = jax.jit(jax.jacrev(summed))(levels.ravel())
  earlier = np.tri(3 * height * width, k=-1, dtype=bool)
  np.testing.assert_array_equal(np.asarray(jacobian) != 0, earlier)


def test_features_belong_to_the_three_colours_in_equal_parts():
  assert colours(3).tolist() == [0, 1, 2]
  assert np.bincount(colours(64)).tolist() == [22, 21, 21]
  assert np.bincount(colours(3 * 256)).tolist() == [256, 256, 256]


def test_levels_enter_the_network_as_pixels_of_images_do():
  levels = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(unit_scaled(levels), pixels.to_float(levels))


def test_the_prior_has_the_layers_of_the_paper():
  """[PRSR]: 7x7 to 64, 20 gated 5x5 of 64, 1x1 to 1024, 1x1 to 3 * 256.

  The gated layers are those of [PixelCNN] fig. 2: above 3x5, left 1x3.
  """
  net = PixelCNN(features=64, num_layers=20, hidden_features=1024)
  shapes = jax.eval_shape(
    net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
  )
  kernels = {
    '/'.join(str(k.key) for k in path[1:-1]): leaf.shape
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes)
    if path[-1].key == 'kernel'
  }
  gated = {
    f'gated_{i}/{name}': shape
    for i in range(20)
    for name, shape in {
      'above': (3, 5, 64, 128),
      'link': (128, 128),
      'left': (3, 64, 128),
      'out': (1, 64, 64),
    }.items()
  }
  assert kernels == gated | {
    'first_above': (3, 7, 3, 64),
    'first_left': (4, 3, 64),
    'hidden': (1, 64, 1024),
    'logits': (1, 1024, 768),
  }
