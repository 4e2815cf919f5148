"""Draws samples into ArrayRecord shards, continued shard by shard.

Shard k holds the images k R to (k + 1) R - 1, whatever the number of processes.
A process draws and writes whole shards: in every batch the rows of its devices
are the next images of its own shards. A shard gets its name only when it is
complete, so a run that was killed draws anew exactly the shards that are not
there.
"""

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cdm.data import array_record, record_format, shard_writer
from cdm.data.files.damaged_file import DamagedFile
from cdm.data.source import element
from cdm.distributed import collectives, device_mesh
from cdm.reporting import progress
from cdm.sampling import cascade
from cdm.sampling.background_writer import BackgroundWriter
from cdm.sampling.one_ahead import one_ahead

COMMAND = 'cdm sample'


class Layout(NamedTuple):
  """Which images are in which shard.

  Attributes:
    num: number of images.
    per_shard: number of images of every shard but the last.
  """

  num: int
  per_shard: int

  @property
  def num_shards(self) -> int:
    """Number of shards."""
    return -(-self.num // self.per_shard)

  def file(self, k: int) -> str:
    """Returns the file name of shard k."""
    return record_format.shard_name(k, self.num_shards)

  def images(self, k: int) -> range:
    """Returns the indices of the images of shard k."""
    return range(k * self.per_shard, min((k + 1) * self.per_shard, self.num))


class Share(NamedTuple):
  """What one process draws and writes.

  Attributes:
    rows: int [r], the rows of every batch that its devices hold, ascending.
    shards: the shards that it writes, in this order.
    images: int [n], the images of these shards, in their order.
  """

  rows: np.ndarray
  shards: list[int]
  images: np.ndarray


class ShardSet(NamedTuple):
  """The shards of an output folder: one folder with an index for every stage.

  Attributes:
    folders: the folder of every stage that is kept, the last stage last.
    layout: which images are in which shard, the same in every folder.
    indices: the unfinished index of every folder.
  """

  folders: list[pathlib.Path]
  layout: Layout
  indices: list[record_format.Index]

  @property
  def finished(self) -> bool:
    """Whether the index of every folder lists all shards."""
    found = [record_format.read_index(folder) for folder in self.folders]
    return all(index is not None and index['complete'] for index in found)

  def missing(self) -> list[int]:
    """Returns the shards that some folder lacks, the same in all processes.

    A collective; every process looks at a part of the shards. One that is
    damaged is missing too; it is said, and drawn again.
    """
    looked = []
    for k in collectives.local_indices(self.layout.num_shards):
      file, count = self.layout.file(k), len(self.layout.images(k))
      looked.append([_fault(f / file, count) for f in self.folders])
    found = collectives.in_turn(collectives.gather_objects(looked))
    if collectives.is_first():
      for fault in itertools.chain.from_iterable(found):
        if fault:
          print(f'Drawn again: {fault}')
    return [
      k
      for k, faults in enumerate(found)
      if any(fault is not None for fault in faults)
    ]

  def begin(self) -> None:
    """Writes every index as unfinished, so that readers refuse the folders."""
    if collectives.is_first():
      for folder, index in zip(self.folders, self.indices, strict=True):
        record_format.write_index(folder, index)

  def finish(self) -> None:
    """Lists all shards in every index; for process 0.

    The fingerprint of a folder is a digest of its manifest and of the sizes of
    its shards, which differ when their images do.
    """
    layout = self.layout
    files = [layout.file(k) for k in range(layout.num_shards)]
    for folder, index in zip(self.folders, self.indices, strict=True):
      sizes = [(folder / file).stat().st_size for file in files]
      whole: record_format.Index = {
        **index,
        'fingerprint': _digest([index['recipe'], sizes]),
        'shards': [
          {
            'file': file,
            'records': len(layout.images(k)),
            'skipped': [],
            'bytes': sizes[k],
          }
          for k, file in enumerate(files)
        ],
        'complete': True,
      }
      record_format.write_index(folder, whole)


def shard_set(
  out: pathlib.Path,
  stages: Sequence[cascade.Stage],
  manifest: Mapping[str, Any],
  class_names: Sequence[str] | None,
) -> ShardSet:
  """Returns the shards that a manifest describes; nothing is written.

  Args:
    out: output folder.
    stages: the stages whose images are kept.
    manifest: manifest of the output folder, with `storage`.
    class_names: names of the classes; None if they have none.
  """
  stored = manifest['storage']
  layout = Layout(stored['images'], stored['records_per_shard'])
  source = f'samples:{_digest(manifest)}'
  classes = [s.num_classes for s in stages if s.num_classes is not None]
  labelled = manifest['labels'] is not None
  # A stage without a label input shows images of the label all the same.
  count = (
    max([*classes, *(n + 1 for n in manifest['labels'])]) if labelled else 0
  )
  names = list(class_names or ())
  named = len(names) >= count
  indices = []
  for stage in stages:
    recipe: record_format.Manifest = {
      'format': 1,
      'source': source,
      'records': layout.num,
      'size': stage.image_size,
      'crop': 'none',
      'filter': 'none',
      'records_per_shard': layout.per_shard,
      'pillow': 'none',
      'libjpeg_turbo': 'none',
      'command': COMMAND,
      'named': named,
    }
    index: record_format.Index = {
      'recipe': recipe,
      'fingerprint': _digest(recipe),
      'class_names': names if named else [str(n) for n in range(count)],
      'shards': [],
      'complete': False,
    }
    indices.append(index if labelled else {**index, 'class_names': []})
  return ShardSet([out / stage.name for stage in stages], layout, indices)


def _digest(value):
  text = json.dumps(value, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _fault(path, count) -> str | None:
  """Returns what is wrong with a shard, '' if it is absent, None if whole."""
  if not path.exists():
    return ''
  try:
    array_record.check_shard(os.fspath(path), count, command=COMMAND)
  except DamagedFile as error:
    return str(error)
  return None


def share_out(
  layout: Layout,
  missing: Sequence[int],
  batch_size: int,
  mesh: jax.sharding.Mesh | None,
) -> dict[int, Share]:
  """Shares missing shards out over the processes; a collective.

  Args:
    layout: which images are in which shard.
    missing: the shards to draw.
    batch_size: number of images of a batch, over all processes.
    mesh: the mesh that a batch is split over, or None for one device.

  Returns:
    {process: its share}, the same in all processes. A process whose devices
    hold only copies of the rows of others has no share.
  """
  here = np.arange(batch_size)
  if mesh is not None:
    numbers = jax.make_array_from_callback(
      (batch_size,), device_mesh.batch_sharding(mesh), lambda part: here[part]
    )
    here = np.array([row for row, _ in device_mesh.local_images(numbers)], int)
  every = collectives.gather_objects(here.tolist())
  holders = [process for process, rows in enumerate(every) if rows]
  shares = {}
  for i, process in enumerate(holders):
    shards = list(missing[i :: len(holders)])
    images = [n for k in shards for n in layout.images(k)]
    shares[process] = Share(
      np.array(every[process]), shards, np.array(images, int)
    )
  return shares


def batches(
  shares: Collection[Share], batch_size: int
) -> Iterator[tuple[np.ndarray, int]]:
  """Yields (images int [B], number of images that are new) of every batch.

  Rows for which a process has no image left repeat an image, so that only one
  shape is compiled.
  """
  some = next(share.images[0] for share in shares if len(share.images))
  for b in range(max(-(-len(s.images) // len(s.rows)) for s in shares)):
    filled, new = np.full(batch_size, some), 0
    for share in shares:
      part = share.images[b * len(share.rows) :][: len(share.rows)]
      filled[share.rows[: len(part)]] = part
      new += len(part)
    yield filled, new


def write_shards(
  drawn: Iterator[Sequence[jax.Array]],
  share: Share,
  shards: ShardSet,
  labels: np.ndarray | None,
) -> None:
  """Writes the shards of one process from the batches that are drawn.

  Args:
    drawn: the batches; each holds the images of every folder, [B, H, W, 3].
    share: what this process writes.
    shards: the shards.
    labels: int32 [num], or None.
  """
  rows = _local_rows(drawn, len(share.images))
  for k in share.shards:
    with contextlib.ExitStack() as files:
      writes = [
        files.enter_context(
          shard_writer.new_shard(folder / shards.layout.file(k))
        )
        for folder in shards.folders
      ]
      for n in shards.layout.images(k):
        images = next(rows, None)
        # A shard that lacks images must not get its name.
        assert images is not None, f'the batches end before image {n}'
        label = 0 if labels is None else labels[n]
        for write, image in zip(writes, images, strict=True):
          write(record_format.pack(element(image, label)))
  for _ in drawn:  # Other processes may have more to write.
    pass


def _local_rows(drawn, count):
  """Yields this process's images of every folder, `count` of them in all."""
  for batch in drawn:
    local = [[x for _, x in device_mesh.local_images(part)] for part in batch]
    for images in zip(*local, strict=True):
      if not count:
        return
      count -= 1
      yield images


def draw_missing(
  draw: Callable[..., Sequence[jax.Array]],
  shards: ShardSet,
  missing: Sequence[int],
  *,
  seed: int,
  labels: np.ndarray | None,
  batch_size: int,
  mesh: jax.sharding.Mesh | None,
) -> None:
  """Draws the missing shards; every process writes its own.

  Args:
    draw: `cascade.sampler` of the stages.
    shards: the shards; those of the last stages of `draw`.
    missing: the shards to draw, the same in all processes.
    seed: seed of all images.
    labels: int32 [num], or None.
    batch_size: number of images of a batch, over all processes.
    mesh: the mesh that a batch is split over, or None for one device.
  """
  shards.begin()
  shares = share_out(shards.layout, missing, batch_size, mesh)
  nothing = Share(np.array([], int), [], np.array([], int))
  own = shares.get(jax.process_index(), nothing)
  num, kept = shards.layout.num, len(shards.folders)
  done = num - sum(len(share.images) for share in shares.values())

  def begin():
    for images, new in batches(shares.values(), batch_size):
      drawn = draw(seed, images, None if labels is None else labels[images])
      yield drawn[-kept:], new

  def consume(drawn):
    write_shards(drawn, own, shards, labels)

  with (
    progress.Progress('sampling', total=num, initial=done) as bar,
    BackgroundWriter(consume) as writer,
  ):
    bar.compiling()
    for drawn, new in one_ahead(begin()):
      # The devices draw the next batch while the thread writes this one.
      writer.put(jax.block_until_ready(drawn))
      bar.advance(new)
