"""Exports the network of degraded photographs as ONNX, for any ONNX runtime.

  lowres uint8 [n, h, w, 3], damage float32 [n, 3]
    -> image uint8 [n, f h, f w, 3], values float32 in [-1, 1]

The graph holds the enlargement too, so that it takes a picture and gives a
picture. Batch, height and width are open; the magnification f is fixed. It is
written node by node: the network has convolutions, dense layers, SiLU and
squares of pixels that become channels, and nothing else.
"""

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cdm.config.stage import stage as build
from cdm.data import shell_commands
from cdm.data.files import atomic_files
from cdm.data.low_res_inputs import LEVELS
from cdm.models import quiet_smoothing
from cdm.models.unshuffled_resnet import UnshuffledResnet
from cdm.sampling import exported_stage

SUFFIX = '.onnx'
# Runtimes of 2022 and later know both; the graph uses nothing newer.
OPSET, IR_VERSION = 17, 8
OPEN = ('n', 'h', 'w')


def build_model(read: exported_stage.Read, *, dtype: str = 'float32') -> Any:
  """Returns the onnx.ModelProto of a trained stage.

  Args:
    read: the stage.
    dtype: 'float32' or 'float16', in which the parameters are kept; they are
      computed with as float32 ones.

  Raises:
    ValueError: the stage has another network, or onnx is not installed.
  """
  onnx = _import_onnx()
  c = read.config
  net = build(c).net
  if not isinstance(net, UnshuffledResnet) or c.method.kind != 'regression':
    raise ValueError(
      f'{c.name!r} has method.kind={c.method.kind!r} and a '
      f'{type(net).__name__}; ONNX is written of the network of degraded '
      "photographs alone (model.kind='unshuffled_resnet' with "
      "method.kind='regression'). Export a program with --to=stablehlo."
    )
  factor, rest = divmod(c.pipeline.image_size, c.lowres.size)
  if rest or factor % net.patch_size:
    raise ValueError(
      f'{c.name!r} enlarges {c.lowres.size} pixels to {c.pipeline.image_size} '
      f'and works on squares of {net.patch_size}; a graph that takes any '
      'picture needs a magnification of whole squares.'
    )
  graph = _Graph(onnx, dtype)
  _add_network(graph, net, read.params, factor)
  made = onnx.helper.make_graph(
    graph.nodes,
    c.name,
    [
      _value(onnx, 'lowres', np.uint8, [*OPEN, 3]),
      _value(onnx, 'damage', np.float32, [OPEN[0], len(LEVELS) - 1]),
    ],
    [
      _value(onnx, 'image', np.uint8, [OPEN[0], 'H', 'W', 3]),
      _value(onnx, 'values', np.float32, [OPEN[0], 'H', 'W', 3]),
    ],
    graph.arrays,
  )
  model = onnx.helper.make_model(
    made,
    opset_imports=[onnx.helper.make_opsetid('', OPSET)],
    ir_version=IR_VERSION,
    producer_name='cdm',
    doc_string=f'{c.name}, step {read.step}; damage: {", ".join(LEVELS[1:])}',
  )
  onnx.checker.check_model(model)
  return model


def write(path: str | os.PathLike[str], model: Any) -> int:
  """Writes a model into one file, which appears whole or not at all.

  Returns:
    Its size in bytes.
  """
  data = model.SerializeToString()
  with atomic_files.write_atomically(pathlib.Path(path)) as partial:
    partial.write_bytes(data)
  return len(data)


class _Graph:
  """The nodes and the constant arrays of a graph that is being written."""

  def __init__(self, onnx: Any, dtype: str):
    self.nodes: list[Any] = []
    self.arrays: list[Any] = []
    self._onnx, self._dtype = onnx, dtype

  def add(
    self,
    kind: str,
    inputs: Sequence[str],
    name: str | None = None,
    **attributes: Any,
  ) -> str:
    """Adds a node with one output, and returns the name of that."""
    name = name or f'{kind}_{len(self.nodes)}'
    self.nodes.append(
      self._onnx.helper.make_node(kind, inputs, [name], name, **attributes)
    )
    return name

  def constant(self, value: Any, name: str | None = None) -> str:
    """Adds a constant array, kept as it is."""
    name = name or f'constant_{len(self.arrays)}'
    self.arrays.append(
      self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name)
    )
    return name

  def parameter(self, value: Any, name: str) -> str:
    """Adds a parameter, rounded as the file keeps it, used as float32."""
    kept = np.asarray(value, np.float32).astype(self._dtype)
    if kept.dtype == np.float32:
      return self.constant(kept, name)
    kept_name = self.constant(kept, f'{name}/{self._dtype}')
    return self.add('Cast', [kept_name], name, to=self._onnx.TensorProto.FLOAT)

  def dense(self, x: str, layer: Mapping[str, Any], name: str) -> str:
    """Adds a dense layer, [B, C] -> [B, D]."""
    kernel = self.parameter(layer['kernel'], f'{name}/kernel')
    bias = self.parameter(layer['bias'], f'{name}/bias')
    return self.add('Gemm', [x, kernel, bias], name)

  def conv(self, x: str, layer: Mapping[str, Any], name: str) -> str:
    """Adds a 3x3 convolution, [B, C, h, w] -> [B, D, h, w]."""
    kernel = np.asarray(layer['kernel']).transpose(3, 2, 0, 1)
    inputs = [
      x,
      self.parameter(kernel, f'{name}/kernel'),
      self.parameter(layer['bias'], f'{name}/bias'),
    ]
    return self.add('Conv', inputs, name, kernel_shape=[3, 3], pads=[1] * 4)

  def filtered(self, x: str, weights: np.ndarray, *, channels: int) -> str:
    """Filters each channel of [B, C, H, W] along both axes, past its edge."""
    pad = len(weights) // 2
    pads = self.constant(np.array([0, 0, pad, pad] * 2, np.int64))
    kernel = np.outer(weights, weights).astype(np.float32)
    kernel = np.broadcast_to(kernel, (channels, 1, *kernel.shape))
    return self.add(
      'Conv',
      [self.add('Pad', [x, pads], mode='edge'), self.constant(kernel)],
      group=channels,
    )

  def silu(self, x: str) -> str:
    return self.add('Mul', [x, self.add('Sigmoid', [x])])

  def scaled(self, x: str, scale: str) -> str:
    """Adds x (1 + scale), of a scale [B, C] per channel."""
    one = self.add('Add', [scale, self.constant(np.float32(1))])
    return self.add('Mul', [x, self._of_channels(one)])

  def film(self, x: str, emb: str, layer: Mapping[str, Any], name: str) -> str:
    """Scales and shifts the channels of x by a dense layer of emb."""
    halves = [f'{name}/scale', f'{name}/shift']
    both = self.dense(emb, layer, name)
    self.nodes.append(
      self._onnx.helper.make_node(
        'Split', [both], halves, f'{name}/split', axis=1
      )
    )
    return self.add(
      'Add', [self.scaled(x, halves[0]), self._of_channels(halves[1])]
    )

  def _of_channels(self, x: str) -> str:
    axes = self.constant(np.array([2, 3], np.int64))
    return self.add('Unsqueeze', [x, axes])


def _add_network(
  graph: _Graph, net: UnshuffledResnet, params: Mapping[str, Any], factor: int
) -> None:
  """Adds the enlargement, the network and the rounding to a graph."""
  p = net.patch_size
  enlarged = _add_enlargement(graph, factor)
  # The first number is the magnification, which becomes a part of the bias; in
  # float32, which holds the sum.
  levels = {k: np.asarray(v, np.float32) for k, v in params['levels1'].items()}
  bias = levels['bias'] + np.float32(math.log2(factor)) * levels['kernel'][0]
  told = [
    'damage',
    graph.parameter(levels['kernel'][1:], 'levels1/kernel'),
    graph.constant(bias, 'levels1/bias'),
  ]
  emb = graph.silu(graph.add('Gemm', told, 'levels1'))
  emb = graph.silu(graph.dense(emb, params['levels2'], 'levels2'))
  h = graph.add('SpaceToDepth', [enlarged], blocksize=p)
  h = graph.conv(h, params['conv_in'], 'conv_in')
  h = graph.film(h, emb, params['film_in'], 'film_in')
  for i in range(net.num_blocks):
    name = f'block_{i}'
    block = params[name]
    y = graph.conv(h, block['conv1'], f'{name}/conv1')
    y = graph.silu(graph.film(y, emb, block['film'], f'{name}/film'))
    h = graph.add('Add', [h, graph.conv(y, block['conv2'], f'{name}/conv2')])
  gate = graph.dense(emb, params['gate'], 'gate')
  found = graph.scaled(graph.conv(h, params['conv_out'], 'conv_out'), gate)
  found = graph.add('DepthToSpace', [found], blocksize=p, mode='DCR')
  if net.quiet_level:
    found = _add_smoothing(graph, found, net)
  image = graph.add('Add', [enlarged, found])
  ends = [graph.constant(np.float32(end)) for end in (-1, 1)]
  clipped = graph.add('Clip', [image, *ends])
  graph.add('Transpose', [clipped], 'values', perm=[0, 2, 3, 1])
  _add_rounding(graph, 'values')


def _add_smoothing(graph: _Graph, found: str, net: UnshuffledResnet) -> str:
  """Adds what `quiet_smoothing.smoothed` does to a change [n, 3, H, W]."""
  kernel = quiet_smoothing.kernel(net.patch_size)
  box = np.full(len(kernel), 1.0 / len(kernel))
  low = graph.filtered(found, kernel, channels=3)
  fine = graph.add('Sub', [found, low])
  square = graph.add('Mul', [fine, fine])
  power = graph.add('ReduceMean', [square], axes=[1], keepdims=1)
  power = graph.filtered(power, box, channels=1)
  quiet = (net.quiet_level * quiet_smoothing.GREY_LEVEL) ** 2
  share = graph.add('Mul', [power, graph.constant(np.float32(1 / quiet))])
  share = graph.add('Mul', [share, share])
  share = graph.add('Add', [share, graph.constant(np.float32(1))])
  return graph.add('Sub', [found, graph.add('Div', [fine, share])])


def _add_enlargement(graph: _Graph, factor: int) -> str:
  """Adds lowres uint8 [n, h, w, 3] to the enlarged picture [n, 3, H, W]."""
  x = graph.add('Cast', ['lowres'], to=1)
  x = graph.add('Transpose', [x], perm=[0, 3, 1, 2])
  # As `ops.pixels.to_float`.
  x = graph.add('Mul', [x, graph.constant(np.float32(2))])
  x = graph.add('Sub', [x, graph.constant(np.float32(255))])
  x = graph.add('Mul', [x, graph.constant(np.float32(1 / 255))])
  scales = graph.constant(np.array([1, 1, factor, factor], np.float32))
  return graph.add(
    'Resize',
    [x, '', scales],
    mode='cubic',
    cubic_coeff_a=-0.5,
    coordinate_transformation_mode='half_pixel',
    exclude_outside=1,  # weights beyond the border are shared out
  )


def _add_rounding(graph: _Graph, values: str) -> None:
  """Adds the picture in 256 levels, as `ops.pixels.to_uint8`."""
  x = graph.add('Add', [values, graph.constant(np.float32(1))])
  x = graph.add('Mul', [x, graph.constant(np.float32(127.5))])
  x = graph.add('Add', [x, graph.constant(np.float32(0.5))])
  x = graph.add('Floor', [x])
  graph.add('Cast', [x], 'image', to=2)


def _value(onnx: Any, name: str, dtype: Any, shape: Sequence[Any]) -> Any:
  kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
  return onnx.helper.make_tensor_value_info(name, kind, shape)


def _import_onnx() -> Any:
  try:
    import onnx
  except ImportError as error:
    raise ValueError(
      f'--to=onnx needs the package onnx ({error}). Run: '
      f'{shell_commands.install("cdm[onnx]")}'
    ) from error
  return onnx
