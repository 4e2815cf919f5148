"""Small data sets in the public layouts of archives, of generated images."""

import io
import json
import pathlib
import tarfile
import zipfile

import numpy as np
from PIL import Image


def pixels(number):
  """-> uint8 [8, 9, 3] of random values below a row of the number."""
  image = np.random.default_rng(number).integers(
    0, 256, (8, 9, 3), dtype=np.uint8
  )
  image[0] = number
  return image


def png(number):
  """-> the bytes of a PNG file of `pixels`."""
  file = io.BytesIO()
  Image.fromarray(pixels(number)).save(file, 'PNG')
  return file.getvalue()


def jpeg(number):
  """-> the bytes of a JPEG file."""
  file = io.BytesIO()
  Image.fromarray(pixels(number)).save(file, 'JPEG', quality=95)
  return file.getvalue()


def write_zip(path, members, compression=zipfile.ZIP_STORED):
  """Writes {name: bytes}."""
  with zipfile.ZipFile(path, 'w', compression) as archive:
    for name, data in members.items():
      archive.writestr(name, data)
  return path


def edm_members(labels):
  """-> the members of a zip as dataset_tool.py of StyleGAN3 and EDM writes it.

  Its function `open_dest` for zips names the images 00000/img00000000.png,
  stores all members without compression, and writes dataset.json last, as
  `json.dumps({'labels': [[name, label], ...]})`, or null in place of the list.

  Args:
    labels: one for each image, or a number of images without labels.
  """
  count = labels if isinstance(labels, int) else len(labels)
  names = [f'{n // 1000:05d}/img{n:08d}.png' for n in range(count)]
  listed = None
  if not isinstance(labels, int):
    listed = [list(pair) for pair in zip(names, labels, strict=True)]
  members = {name: png(n) for n, name in enumerate(names)}
  return members | {'dataset.json': json.dumps({'labels': listed}).encode()}


def tar_bytes(members, format=tarfile.USTAR_FORMAT):
  """-> a tar of {name: bytes}, or of TarInfo with their bytes."""
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w', format=format) as tar:
    for name, data in members.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      tar.addfile(info, io.BytesIO(data))
  return file.getvalue()


def write_imagenet_train(path, synsets, each=2):
  """Writes a tar of tars as ILSVRC2012_img_train.tar is one.

  It has one member SYNSET.tar for each class, with SYNSET_NUMBER.JPEG inside,
  not in order.
  """
  inner = {}
  for n, synset in enumerate(synsets):
    numbers = reversed(range(n * each, n * each + each))
    inner[f'{synset}.tar'] = tar_bytes(
      {f'{synset}_{i}.JPEG': jpeg(i) for i in numbers}
    )
  pathlib.Path(path).write_bytes(tar_bytes(inner))
  return path


def write_imagenet_val(path, count=3):
  """Writes a flat tar as ILSVRC2012_img_val.tar is one."""
  names = [f'ILSVRC2012_val_{n + 1:08d}.JPEG' for n in range(count)]
  members = {name: jpeg(n) for n, name in enumerate(names)}
  pathlib.Path(path).write_bytes(tar_bytes(members))
  return path


def write_webdataset(folder, labels, per_shard=2, name='imagenet-train-%06d'):
  """Writes shards as webdataset's ShardWriter does: KEY.jpg, then KEY.cls."""
  shards = [labels[i : i + per_shard] for i in range(0, len(labels), per_shard)]
  n = 0
  for number, shard in enumerate(shards):
    members = {}
    for label in shard:
      members |= {f'{n:08d}.cls': str(label).encode()}
      members |= {f'{n:08d}.jpg': jpeg(n)}
      n += 1
    path = pathlib.Path(folder, f'{name % number}.tar')
    path.write_bytes(tar_bytes(members))
  return folder


# The first lines of the map_clsloc.txt that is in ImageNet's development kit.
MAP_CLSLOC = 'n02119789 1 kit_fox\nn02100735 2 English_setter\n'


def write_npz_batches(folder, batches, compressed=False, name=None):
  """Writes batches as image-net.org's Imagenet64_train_npz has them.

  The keys and the order of the values are those of its README: `data` has all
  red values of an image, then the green and the blue ones; `labels` run from 1
  on; `mean` is the mean image of the training set.

  Args:
    folder: where train_data_batch_1.npz and so on are written.
    batches: the labels of each batch; image n of all is `square(n)`.
  """
  n = 0
  for number, labels in enumerate(batches, 1):
    images = np.stack([square(n + i) for i in range(len(labels))])
    n += len(labels)
    arrays = {
      'data': images.transpose(0, 3, 1, 2).reshape(len(labels), -1),
      'labels': np.array(labels, np.int64),
      'mean': np.zeros(images[0].size),
    }
    path = pathlib.Path(folder, name or f'train_data_batch_{number}.npz')
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
  return folder


def square(number):
  """-> uint8 [8, 8, 3] of `pixels`."""
  return pixels(number)[:, :8]
