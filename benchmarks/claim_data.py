"""Unpacks the real images of `claims.py` into files that cdm reads.

A set becomes FOLDER/train/images.npz and FOLDER/test/images.npz, uint8
[N, 32, 32, 3] with labels, and classes.json beside each. The archives are:

  cifar10_train_a.zip, cifar10_test.zip   shards of 1,000 CIFAR-10 images, each
      one picture of 50 rows and 20 columns in the order of the labels
  imagenette_128_train.zip, imagenette_128_val_2000.zip   a folder per class,
      whose pictures are shrunk to 32 pixels here
  metric_nets.zip   cifar10_resnet56.npz, the network that judges, and
      cifar10_resnet56_reference.npz, statistics of its features that others
      have computed: mu_test, sigma_test, mu_train, sigma_train
"""

import io
import json
import pathlib
import zipfile

import numpy as np
from PIL import Image

from cdm.data import class_names, transforms
from cdm.data.files import atomic_files
from cdm.reporting import image_files

SIDE = 32
ROWS, COLUMNS = 50, 20  # of a shard of CIFAR-10
SETS = {
  'cifar10': {'train': 'cifar10_train_a.zip', 'test': 'cifar10_test.zip'},
  'imagenette': {
    'train': 'imagenette_128_train.zip',
    'test': 'imagenette_128_val_2000.zip',
  },
}
# What a row says of the images of a claim.
DESCRIPTIONS = {
  'cifar10': 'CIFAR-10: 20,000 of the training images, all 10,000 test images',
  'imagenette': 'Imagenette at 32 pixels: 9,469 training images, 2,000 others',
  'faces': 'the held-out faces of the comparison',
  'prsr': 'the held-out faces of the comparison',
}
NETWORK = 'cifar10_resnet56.npz'
STATISTICS = 'cifar10_resnet56_reference.npz'


def unpack(name, data, folder):
  """Writes the two halves of a labelled set, unless they are there.

  Args:
    name: one of `SETS`.
    data: the folder of the archives.
    folder: where 'train' and 'test' are written.
  """
  for half, archive in SETS[name].items():
    out = folder / half
    if (out / 'images.npz').exists():
      continue
    with zipfile.ZipFile(_found(data / archive)) as pack:
      read = _shards if name == 'cifar10' else _pictures
      images, labels = read(pack)
      names = _class_names(name, data, pack)
    out.mkdir(parents=True, exist_ok=True)
    class_names.write(out, names)
    image_files.write_npz(
      out / 'images.npz', images, shape=images.shape, labels=labels
    )


def unpack_network(data, folder):
  """Returns the path of the network that judges, unpacked into a folder.

  The published statistics of its features are beside it.
  """
  for name in (STATISTICS, NETWORK):
    if not (folder / name).exists():
      with zipfile.ZipFile(_found(data / 'metric_nets.zip')) as pack:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_files.write_atomically(folder / name) as partial:
          pathlib.Path(partial).write_bytes(pack.read(_one(pack, name)))
  return folder / NETWORK


def _found(path):
  if not path.is_file():
    raise SystemExit(
      f'{path} does not exist; give the folder of the archives with --data.'
    )
  return path


def _one(pack, end):
  (name,) = (n for n in pack.namelist() if n.rpartition('/')[2] == end)
  return name


def _shards(pack):
  """Returns (images, labels) of the shards of CIFAR-10, in their order."""
  names = sorted(n for n in pack.namelist() if n.endswith('.webp'))
  images = np.concatenate([shard(_picture(pack, name)) for name in names])
  (stored,) = (n for n in pack.namelist() if n.endswith('_labels.npy'))
  labels = np.load(io.BytesIO(pack.read(stored)))
  # The first shards of the training images may be alone, their labels not.
  return images, labels[: len(images)].astype(np.int32)


def shard(sheet):
  """Returns the pictures of a sheet, row by row: uint8 [1000, 32, 32, 3]."""
  expected = (ROWS * SIDE, COLUMNS * SIDE, 3)
  if sheet.shape != expected:
    raise SystemExit(f'A shard is {sheet.shape}; {expected} is expected.')
  cells = sheet.reshape(ROWS, SIDE, COLUMNS, SIDE, 3).transpose(0, 2, 1, 3, 4)
  return cells.reshape(-1, SIDE, SIDE, 3)


def _pictures(pack):
  """Returns (images, labels) of pictures in a folder per class."""
  names = sorted(n for n in pack.namelist() if n.endswith('.webp'))
  folders = [name.split('/')[-2] for name in names]
  known = sorted(set(folders))
  images = [
    transforms.fit(
      _picture(pack, name), size=SIDE, crop='center', filter='area'
    )
    for name in names
  ]
  return np.stack(images), np.int32([known.index(f) for f in folders])


def _picture(pack, name):
  with Image.open(io.BytesIO(pack.read(name))) as image:
    return np.asarray(image.convert('RGB'))


def _class_names(name, data, pack):
  if name != 'cifar10':
    return sorted({n.split('/')[-2] for n in pack.namelist() if '.webp' in n})
  # Only the archive of the test images names the classes.
  with zipfile.ZipFile(_found(data / SETS[name]['test'])) as test:
    return json.loads(test.read(_one(test, 'meta.json')))['classes']
