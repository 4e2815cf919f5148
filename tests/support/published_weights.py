"""Writes weights in the forms in which they are published.

PyTorch's two forms of a state dict, as `torch.save` writes them, a frozen
TensorFlow graph, and the parameters of StyleGAN's generator. Neither library
is needed.
"""

import collections
import io
import pickle
import sys
import types
import zipfile
from unittest import mock

import jax.numpy as jnp
import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
  np.dtype(np.float32): 'FloatStorage',
  np.dtype(np.float64): 'DoubleStorage',
  np.dtype(np.float16): 'HalfStorage',
  np.dtype(jnp.bfloat16): 'BFloat16Storage',
  np.dtype(np.int64): 'LongStorage',
}


def write_pytorch(path, state, *, zipped, part=None):
  """Writes {name: array} as `torch.save` does, today's form or the old one.

  Args:
    path: path of the file.
    state: the arrays.
    zipped: whether in today's form.
    part: their key in a larger dictionary, beside an array of another name;
      None writes them alone.
  """
  storages = {}
  with mock.patch.dict(sys.modules, _torch()):
    tensors = collections.OrderedDict(
      (name, _Tensor(str(i), np.asarray(value), storages))
      for i, (name, value) in enumerate(state.items())
    )
    if part is not None:
      step = _Tensor('step', np.zeros(1, np.float32), storages)
      tensors = {'step': step, part: tensors}
    pickled = _pickle(tensors)
  if zipped:
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('weights/data.pkl', pickled)
      for key, value in storages.items():
        archive.writestr(f'weights/data/{key}', value.tobytes())
      archive.writestr('weights/version', '3\n')
    return
  with open(path, 'wb') as file:
    for head in (_MAGIC, 1001, {'little_endian': True}):
      pickle.dump(head, file, protocol=2)
    file.write(pickled)
    pickle.dump(sorted(storages), file, protocol=2)
    for key in sorted(storages):
      file.write(np.int64(storages[key].size).tobytes())
      file.write(storages[key].tobytes())


def frozen_graph(constants, *, single=()):
  """-> bytes of a GraphDef with these constants, and a node beside them.

  Args:
    constants: {name: array}.
    single: names of constants that are one number, written once.
  """
  from tensorboard.compat.proto import graph_pb2

  graph = graph_pb2.GraphDef()
  graph.node.add(name='input', op='Placeholder').attr['shape'].shape.dim.add(
    size=-1
  )
  for name, value in constants.items():
    value = np.asarray(value)
    node = graph.node.add(name=name, op='Const')
    node.attr['dtype'].type = 1 if value.dtype == np.float32 else 3
    tensor = node.attr['value'].tensor
    tensor.dtype = node.attr['dtype'].type
    for n in value.shape:
      tensor.tensor_shape.dim.add(size=n)
    if name in single:
      tensor.float_val.append(float(value.flat[0]))
    else:
      tensor.tensor_content = value.tobytes()
  return graph.SerializeToString()


def stylegan_state(net, part, seed=0):
  """-> normal numbers under the names and in the shapes of a published file.

  Args:
    net: the `Generator` that the file is for.
    part: 'synthesis' or 'mapping'.
    seed: seed of the numbers.
  """
  from cdm.models.pretrained import stylegan

  rng = np.random.default_rng(seed)
  shapes, names = stylegan._shapes(net), stylegan._names(net)[part]
  made = {}
  for ours, theirs in names.items():
    value = rng.standard_normal(shapes[ours], np.float32)
    if ours.endswith('/const'):
      value = value.transpose(2, 0, 1)[None]
    elif ours.endswith('/kernel'):
      value = np.moveaxis(value, (-1, -2), (0, 1))
    made[theirs] = value
  return made


class _Storage:
  def __init__(self, key, value):
    self.key, self.value = key, value


class _Tensor:
  def __init__(self, key, value, storages):
    value = np.ascontiguousarray(value)  # whose strides are those of its copy
    self.storage, self.shape = _Storage(key, value), value.shape
    self.strides = tuple(s // value.itemsize for s in value.strides)
    storages[key] = value

  def __reduce__(self):
    words = (self.storage, 0, self.shape, self.strides)
    rebuild = sys.modules['torch._utils']._rebuild_tensor_v2
    return rebuild, (*words, False, collections.OrderedDict())


def _torch():
  """-> modules that a pickle of PyTorch refers to, empty."""
  torch, utils = types.ModuleType('torch'), types.ModuleType('torch._utils')
  for name in _STORAGES.values():
    setattr(torch, name, type(name, (), {'__module__': 'torch'}))

  def _rebuild_tensor_v2():
    pass

  _rebuild_tensor_v2.__module__ = 'torch._utils'
  _rebuild_tensor_v2.__qualname__ = '_rebuild_tensor_v2'
  utils._rebuild_tensor_v2, torch._utils = _rebuild_tensor_v2, utils
  return {'torch': torch, 'torch._utils': utils}


def _pickle(tensors):
  class Pickler(pickle.Pickler):
    def persistent_id(self, value):
      if not isinstance(value, _Storage):
        return None
      kind = getattr(sys.modules['torch'], _STORAGES[value.value.dtype])
      return ('storage', kind, value.key, 'cpu', value.value.size)

  file = io.BytesIO()
  Pickler(file, protocol=2).dump(tensors)
  return file.getvalue()
