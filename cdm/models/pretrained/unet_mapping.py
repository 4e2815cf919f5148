"""Takes the parameters of our U-Net from a file of PyTorch's names and layouts.

PyTorch stores a convolution as [out, in, h, w] and a dense layer as [out, in];
ours are [h, w, in, out] and [in, out]. The names and shapes that a file must
hold follow from the network, so a file of another network is refused, and what
is missing or too much is named.
"""

from collections.abc import Callable, Mapping, Sequence

import flax
import jax
import jax.numpy as jnp
import numpy as np

from cdm.models.unet import UNet
from cdm.models.unet_plan import Level

# Names in an error, which is one sentence.
MOST_NAMES = 8


def convert(
  state: Mapping[str, np.ndarray],
  shapes: dict[tuple[str, str], tuple[int, ...]],
  names: dict[str, str],
  fit: Callable[[str, str, np.ndarray], np.ndarray],
) -> dict:
  """Takes every parameter in `shapes` from `state`, in our layout and order.

  Args:
    state: {the file's name: array}.
    shapes: {(our module, leaf): shape}.
    names: {our module: the file's module}.
    fit: `(our module, leaf, array in our layout) -> array in our order`.

  Returns:
    Nested dicts of float32 arrays.

  Raises:
    ValueError: a parameter is missing, unknown or of another shape.
  """
  sources = {}
  for module, leaf in shapes:
    if module not in names:
      raise ValueError(f'{module} has no counterpart in this kind of file.')
    sources[module, leaf] = _source(names[module], leaf)
  _check_names(state, sources)
  params = {}
  for (module, leaf), shape in shapes.items():
    source = sources[module, leaf]
    value = _layout(np.asarray(state[source], np.float32), leaf)
    value = fit(module, leaf, value)
    if value.shape != shape:
      raise ValueError(
        f'{source} is {value.shape} in our layout; our {module}/{leaf} is '
        f'{shape}.'
      )
    params[(*module.split('/'), leaf)] = value
  return flax.traverse_util.unflatten_dict(params)


def _check_names(state, sources):
  """Raises ValueError that names what is missing and what is too much."""
  missing = {t: o for o, t in sources.items() if t not in state}
  used = set(sources.values())
  unknown = [name for name in state if name not in used]
  said = []
  if missing:
    first, (module, leaf) = next(iter(missing.items()))
    said.append(f'{first} is missing; it is our {module}/{leaf}.')
    if len(missing) > 1:
      said.append(
        f'So are {len(missing) - 1} others: {listed([*missing][1:])}.'
      )
  if unknown:
    said.append(
      f'The network has no place for {len(unknown)} parameters of the file, '
      f'first {listed(unknown)}.'
    )
  if said:
    raise ValueError(' '.join(said))


def listed(names: Sequence[str]) -> str:
  """Returns the first of some names, for an error."""
  more = len(names) - MOST_NAMES
  return ', '.join(names[:MOST_NAMES]) + (f' and {more} more' * (more > 0))


def _source(module, leaf):
  """Returns the file's name of a parameter of one of its modules."""
  return f'{module}.{"bias" if leaf == "bias" else "weight"}'


def _layout(value: np.ndarray, leaf: str) -> np.ndarray:
  """Returns PyTorch's array in our layout."""
  if leaf != 'kernel':
    return value
  if value.ndim == 4 and value.shape[2:] != (1, 1):
    return value.transpose(2, 3, 1, 0)  # [O, I, h, w] -> [h, w, I, O]
  return value.reshape(value.shape[:2]).T  # [O, I], [O, I, 1] or [O, I, 1, 1]


def in_channels(state: Mapping[str, np.ndarray], first: str) -> int:
  """Returns the input channels of the file's first convolution."""
  name = f'{first}.weight'
  if name not in state:
    raise ValueError(f'{name} is missing; it is our conv_in/kernel.')
  return state[name].shape[1]


def shapes(
  net: UNet, image_size: Sequence[int], lowres_channels: int
) -> dict[tuple[str, str], tuple[int, ...]]:
  """Returns {(module, leaf): shape} of our parameters, allocating none."""

  def init(key):
    x = jnp.zeros((1, *image_size, net.out_channels))
    lowres = jnp.zeros((1, *image_size, max(lowres_channels, 0)))
    return net.init(
      key,
      x,
      jnp.zeros(1),
      label=None if net.num_classes is None else jnp.zeros(1, jnp.int32),
      lowres=lowres if lowres_channels > 0 else None,
      lowres_level=jnp.zeros(1) if net.lowres_level else None,
      train=False,
    )['params']

  tree = flax.traverse_util.flatten_dict(
    jax.eval_shape(init, jax.random.key(0))
  )
  return {('/'.join(k[:-1]), k[-1]): leaf.shape for k, leaf in tree.items()}


def ways(
  levels: Sequence[Level],
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
  """Returns our modules on the way down and on the way up, in order.

  An entry is (block, its attention) or (resampling,) or (conv_in,).
  """
  down: list[tuple[str, ...]] = [('conv_in',)]
  up: list[tuple[str, ...]] = []
  for level, coarser in zip(levels, (*levels[1:], None), strict=True):
    for j in range(level.num_blocks):
      name = f'down_{level.name}'
      down.append((f'{name}_block_{j}', f'{name}_attention_{j}'))
    if coarser:
      down.append((f'down_{level.name}_to_{coarser.name}',))
  for level, finer in zip(levels[::-1], (*levels[-2::-1], None), strict=True):
    for j in range(level.num_blocks + 1):
      name = f'up_{level.name}'
      up.append((f'{name}_block_{j}', f'{name}_attention_{j}'))
    if finer:
      up.append((f'up_{level.name}_to_{finer.name}',))
  return down, up


def inside(
  modules: dict[str, str], parts: dict[str, dict[str, str]]
) -> dict[str, str]:
  """Adds the parts of each module, such as norm1, to {ours: the file's}."""
  inner = {}
  for ours, theirs in modules.items():
    kind = 'attention' if 'attention' in ours else 'block'
    for part, their_part in parts[kind].items():
      inner[f'{ours}/{part}'] = f'{theirs}.{their_part}'
  return modules | inner
