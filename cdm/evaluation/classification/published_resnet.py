"""Measures the top-1 and top-5 error of a published ResNet-50 on images.

The images of a labelled set (see `labelled_set`) are read as `imagenet_reader`
says: the short side is resized to 256, and the middle 224 pixels are cut out.

A super-resolution stage is evaluated as in [SR3] tab. 3, where the images are
the first 1000 of the validation set. The classifier sees three versions of
each:

  baseline   x, the middle 224 pixels, as above
  bicubic    y enlarged to 224, where y is x shrunk by the stage's factor (to
             56 pixels for a stage 64 -> 256)
  ours       y enlarged to the stage's input of 64, super-resolved to 256,
             shrunk to 224

All resizing is bicubic and antialiased, and passes through uint8. [SR3] speaks
of 56 x 56 centre crops that are super-resolved 4x. We read this as the middle
224 pixels shrunk to 56: a crop of 56 pixels of the original itself would show
a twentieth of it, and could not give the paper's baseline error of .252, which
is that of whole crops (torchvision states .239 for all 50,000 images).
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from cdm.config import loader
from cdm.data import class_names
from cdm.distributed import collectives, device_mesh, user_cache
from cdm.evaluation.batched_network import BatchedNetwork, judged_at_once
from cdm.evaluation.classification import error_rates, labelled_set, ranks
from cdm.evaluation.classification.imagenet_reader import (
  SHORT_SIDE,
  SIDE,
  Reader,
  open_reader,
)
from cdm.evaluation.image_selection import StageSampling
from cdm.evaluation.metrics import top_k
from cdm.evaluation.row_types import ErrorRow, ImageManifest, StageEntry
from cdm.models import resnet
from cdm.models.pretrained import download, pytorch_file
from cdm.ops import resize
from cdm.ops.keys import seed_pairs
from cdm.sampling import drawing_batch, named_upscaler
from cdm.sampling.upscaler import Upscaler

BATCH_SIZE = 64
OTHER = 'ResNet-50 of other weights than the published ones'


def evaluate_set(
  what: str | os.PathLike,
  *,
  num: int | None = None,
  weights: str | os.PathLike | None = None,
  batch_size: int | None = None,
  keep: str | os.PathLike | None = None,
  section: dict[str, Any] | None = None,
) -> ErrorRow:
  """Measures the error of ResNet-50 on a labelled set.

  Args:
    what: WHAT, see `labelled_set`.
    num: number of images to take; all by default.
    weights: path of torchvision's file; downloaded by default.
    batch_size: images that this process classifies at once; None chooses it.
    keep: folder for partial results, from which a killed run continues; the
      user's cache by default.
    section: opens the set in another way than `labelled_set.section` says.

  Raises:
    ValueError: there is no such set, or it has classes that are not ImageNet's.
    OSError: the weights are missing and cannot be downloaded.
  """
  batch_size = batch_size or judged_at_once(BATCH_SIZE, on_cpus=BATCH_SIZE)
  section = section or labelled_set.section(what)
  reader = open_reader(what, section, num)
  network, classifier = read_network(weights, batch_size)

  def rank(indices, batch):
    x, labels = batch
    return indices, rank_versions(network, [x], reader.classes[labels])

  recipe: ImageManifest = {
    'data': str(what),
    'fingerprint': reader.source.fingerprint,
    **classifier,
  }
  at_once = batch_size * collectives.process_count()
  found = rank_resumably(reader, rank, ('image',), recipe, at_once, keep)
  return error_rates.error_row(
    found['image'], reader, recipe, {'samples': str(what)}
  )


def evaluate_stage(
  workdir: str | os.PathLike,
  sampling: StageSampling,
  *,
  reference: str | os.PathLike | None = None,
  weights: str | os.PathLike | None = None,
  batch_size: int | None = None,
  keep: str | os.PathLike | None = None,
) -> ErrorRow:
  """Measures the error of ResNet-50 on the images of a super-resolution stage.

  Args:
    workdir: work directory of the stage, which `cdm train` wrote.
    sampling: how the images are sampled; `num` None takes all images.
    reference: WHAT, the original images; the stage's own held-out data by
      default.
    weights, batch_size, keep: see `evaluate_set`.

  Returns:
    The row of the stage. Its 'baseline' and 'bicubic' hold the errors of the
    other two versions.

  Raises:
    ValueError: an error of `evaluate_set`, or the magnification of the stage
      does not divide 224.
    OSError: an error of `evaluate_set`.
  """
  batch_size = batch_size or judged_at_once(BATCH_SIZE, on_cpus=BATCH_SIZE)
  upscale, saved = named_upscaler.opened(
    pathlib.Path(workdir),
    level=sampling.level,
    overrides=sampling.overrides,
    at=sampling.at,
    limits=drawing_batch.OWN_ROWS._replace(
      per_device=sampling.batch_per_device
    ),
    redraws=sampling.redraws,
  )
  seed = sampling.seed
  factor = upscale.factor
  if SIDE % factor:
    raise ValueError(
      f'{workdir} magnifies by {factor}, which does not divide {SIDE}, the '
      'side that ResNet-50 takes.'
    )
  if reference is None:
    what, section = f'{saved.name}:eval', dict(saved.eval_data)
  else:
    what, section = str(reference), labelled_set.section(reference)
  reader = open_reader(what, section, sampling.num)
  network, recipe = read_network(weights, batch_size)
  drawn = drawing_batch.evened(upscale.batch_size, reader.count, upscale.mesh)
  upscale = dataclasses.replace(upscale, batch_size=drawn)
  # Several batches are drawn, if need be, so that there is enough to judge for
  # every process.
  turns = max(1, batch_size * collectives.process_count() // drawn)
  ranker = StageRanker(
    upscale,
    reader,
    network,
    labels_of_stage(upscale, workdir, reader.source),
    seed=seed,
  )
  sizes = (
    *(SIDE, SIDE // factor),
    *(upscale.lowres_size, upscale.image_size, SIDE),
  )
  recipe |= {
    'drawn': saved.name,
    'data': what,
    'fingerprint': reader.source.fingerprint,
    'seed': seed,
    'stages': [cast(StageEntry, upscale.record.manifest('name'))],
    'weights': upscale.record.weights,
    'sizes': list(sizes),
    'resize': 'bicubic, antialiased, uint8',
  }
  kinds = ('baseline', 'bicubic', 'ours')
  found = rank_resumably(
    reader,
    ranker.rank,
    kinds,
    recipe,
    turns * drawn,
    keep,
    read=ranker.read,
    together=True,
  )
  row = error_rates.error_row(
    found['ours'],
    reader,
    recipe,
    {'samples': str(workdir), 'reference': what},
  )
  row['baseline'] = error_rates.error_rates(found['baseline'])
  row['bicubic'] = error_rates.error_rates(found['bicubic'])
  row['paper'] = loader.plain(saved.get('paper', {}))
  return row


class StageRanker:
  """Ranks the true class in the three versions of a stage's images.

  All processes draw together, and each reads and judges the images of its own
  devices.
  """

  def __init__(
    self,
    upscale: Upscaler,
    reader: Reader,
    network: BatchedNetwork,
    stage_labels: np.ndarray | None,
    *,
    seed: int,
  ):
    """Keeps what it ranks with; nothing is read or drawn yet.

    Args:
      upscale: the stage; as many images are drawn at once as its `batch_size`.
      reader: the images.
      network: see `read_network`.
      stage_labels: see `labels_of_stage`.
      seed: seed of the samples.
    """
    self._upscale, self._reader, self._network = upscale, reader, network
    self._stage_labels, self._seed = stage_labels, seed
    self._rows = upscale.local_rows(upscale.batch_size).tolist()

  def read(self, indices: Sequence[int]) -> tuple[list[int], Any]:
    """Reads this process's images of some.

    Returns:
      (positions of its images among the indices, what the reader returns of
      them), or ([], None).
    """
    starts = range(0, len(indices), self._upscale.batch_size)
    positions = [first + r for first in starts for r in self._rows]
    positions = [p for p in positions if p < len(indices)]
    if not positions:
      return positions, None
    return positions, self._reader.read([indices[p] for p in positions])

  def rank(
    self, indices: Sequence[int], loaded: tuple[list[int], Any]
  ) -> tuple[list[int], np.ndarray]:
    """Draws the images and ranks the true class in those of this process.

    A collective: every process must call it.

    Args:
      indices: of the images.
      loaded: what `read` returned.

    Returns:
      (indices, int [n, 3]: the ranks in baseline, bicubic and ours).
    """
    positions, found = loaded
    place = {p: i for i, p in enumerate(positions)}
    if found is None:  # A black image is drawn, so that all draw.
      found = np.zeros((1, SIDE, SIDE, 3), np.uint8), np.zeros(1, np.int64)
    x, labels = found
    upscale = self._upscale
    low, *versions = make_versions(x, upscale.factor, upscale.lowres_size)
    made = self._draw(indices, place, low, labels)
    rows = [place[p] for p in made]
    local = [version[rows] for version in versions]
    if made:
      local.append(resize_bicubic(np.stack(list(made.values())), SIDE))
    else:
      local.append(local[0])
    ranks = rank_versions(
      self._network, local, self._reader.classes[labels[rows]]
    )
    return [indices[p] for p in made], ranks

  def _draw(self, indices, place, low, labels):
    """Returns {position: super-resolved image} of this process's images."""
    size, last, made = self._upscale.batch_size, len(indices) - 1, {}
    for start in range(0, len(indices), size):
      # The batch is filled up, so that one shape is compiled: a program for
      # another shape may round otherwise.
      filled = [place.get(start + r, 0) for r in self._rows]
      numbers = [indices[min(start + r, last)] for r in self._rows]
      label = None
      if self._stage_labels is not None:
        label = self._stage_labels[labels[filled]]
      x = self._upscale.start_rows(
        low[filled], keys=seed_pairs(self._seed, np.array(numbers)), label=label
      )
      for r, image in device_mesh.local_images(x):
        if start + r <= last:
          made[start + r] = image
    return made


def read_network(
  weights: str | os.PathLike | None, batch_size: int
) -> tuple[BatchedNetwork, ImageManifest]:
  """Reads the weights of ResNet-50.

  Args:
    weights: path of torchvision's file; None downloads it once.
    batch_size: images per batch.

  Returns:
    (network, its part of the manifest). The network takes uint8
    [n, 224, 224, 3] and returns logits [n, 1000].

  Raises:
    ValueError: the file is missing, or it holds another network.
    OSError: the file cannot be downloaded; the message says which file to put
      where.
  """
  path = weights
  if path is None:
    path = download.fetch(
      resnet.URL, resnet.SHA256, flag='--classifier_weights'
    )
  elif not pathlib.Path(path).is_file():
    raise ValueError(
      f'--classifier_weights={path} is not there. Give '
      f'{resnet.URL.rpartition("/")[2]} (SHA-256 '
      f'{resnet.SHA256[:8]}...), from {resnet.URL}.'
    )
  net: Any = resnet.ResNet50()
  variables = resnet.from_pytorch(pytorch_file.read(path), net)
  digest = download.digest(path)

  def logits(variables, image):
    return net.apply(variables, resnet.normalise(image), train=False).logits

  known = digest == resnet.SHA256
  recipe: ImageManifest = {
    'network': error_rates.NETWORK if known else OTHER,
    'classifier_weights_sha256': digest,
    'preset': f'short side {SHORT_SIDE}, bilinear; the middle {SIDE}',
  }
  return BatchedNetwork(logits, variables, batch_size=batch_size), recipe


def labels_of_stage(
  upscale: Upscaler, workdir: str | os.PathLike, source: Any
) -> np.ndarray | None:
  """Returns the stage's label of each class of a source, by name.

  If the stage or the source has no names, class n of the source is label n.

  Args:
    upscale, workdir: the stage, and its work directory.
    source: the data set.

  Returns:
    int [classes of the source], or None if the stage takes no label.

  Raises:
    ValueError: the stage was not trained on a class of the source.
  """
  if upscale.num_classes is None:
    return None
  names = class_names.read(workdir)
  if names is None or not labelled_set.is_named(source):
    return np.arange(source.num_classes)
  strange = [name for name in source.class_names if name not in names]
  if strange:
    raise ValueError(
      f'{workdir} was not trained on the class {strange[0]!r} of these images.'
    )
  return np.array([names.index(name) for name in source.class_names])


def make_versions(
  x: np.ndarray, factor: int, tile: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Makes the stage's input, the baseline and the bicubic version.

  Args:
    x: uint8 [n, 224, 224, 3], the originals.
    factor: magnification of the stage.
    tile: side of the stage's input in pixels.

  Returns:
    (uint8 [n, tile, tile, 3], x itself, uint8 [n, 224, 224, 3]).
  """
  y = resize_bicubic(x, SIDE // factor)
  return resize_bicubic(y, tile), x, resize_bicubic(y, SIDE)


def resize_bicubic(x: np.ndarray, size: int) -> np.ndarray:
  """Resizes by bicubic, uint8 [n, H, W, 3] -> uint8 [n, size, size, 3]."""
  return np.asarray(resize.resize_uint8(x, size, method='bicubic'))


def rank_versions(
  network: BatchedNetwork, versions: Sequence[np.ndarray], classes: np.ndarray
) -> np.ndarray:
  """Ranks the true classes in every version of some images.

  Args:
    network: see `read_network`.
    versions: arrays uint8 [n, 224, 224, 3].
    classes: int [n], the true classes of ImageNet.

  Returns:
    int [n, number of versions], see `top_k.ranks`.
  """
  if not len(classes):
    return np.zeros((0, len(versions)), np.int64)
  found = [top_k.ranks(network(x), classes) for x in versions]
  return np.stack(found, axis=1)


def rank_resumably(
  reader: Reader,
  rank: Callable[[Sequence[int], Any], tuple[Sequence[int], np.ndarray]],
  kinds: Sequence[str],
  recipe: ImageManifest,
  batch_size: int,
  keep: str | os.PathLike | None,
  *,
  read: Callable[[Sequence[int]], Any] | None = None,
  together: bool = False,
) -> dict[str, np.ndarray]:
  """Ranks all images; partial results are kept on disk until the end.

  Args:
    reader: the images.
    rank, kinds, together: see `ranks.rank_images`.
    recipe: the manifest of the ranks, which names the partial results.
    batch_size: images per batch, over all processes.
    keep: see `evaluate_set`.
    read: reads the images in the place of the reader, or None.

  Returns:
    {kind: int [count], the ranks}.
  """
  home = user_cache.folder('evaluate') if keep is None else keep
  rows = ranks.open_rows(home, [recipe, reader.which, reader.count], kinds)
  found = ranks.rank_images(
    reader.count,
    read or reader.read,
    rank,
    kinds=kinds,
    rows=rows,
    batch_size=batch_size,
    label='classifying',
    together=together,
  )
  rows.remove()
  return found
