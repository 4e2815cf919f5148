"""Measures the top-1 and top-5 error of a published ResNet-50 on images.

The images of a labelled set (see `labelled_set`) go through torchvision's
preset: the short side is resized to 256, and the middle 224 pixels are cut out.

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
224 pixels shrunk to 56: a crop of 56 pixels of the photograph itself would show
a twentieth of it, and could not give the paper's baseline error of .252, which
is that of whole crops (torchvision states .239 for all 50,000 images).
"""

import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cdm.config import loader
from cdm.data import class_names, subset, transforms
from cdm.distributed import collectives
from cdm.evaluation import compare_sets, image_source, partial_results
from cdm.evaluation.batched_network import BatchedNetwork
from cdm.evaluation.classification import labelled_set, ranks
from cdm.evaluation.metrics import top_k
from cdm.models import resnet
from cdm.models.pretrained import download, imagenet_classes, pytorch_file
from cdm.ops import resize
from cdm.ops.keys import image_pairs
from cdm.sampling import restore
from cdm.sampling.upscaler import Upscaler

BATCH_SIZE = 64
SIDE, SHORT_SIDE = 224, 256
NETWORK = "ResNet-50, torchvision's IMAGENET1K_V1"
OTHER = 'ResNet-50 of other weights than the published ones'


class Reader(NamedTuple):
  """Reads the images of a labelled set through torchvision's preset.

  Attributes:
    count: number of images.
    read: `read(indices)` returns (uint8 [n, 224, 224, 3], int [n] labels of the
      source).
    classes: int [classes of the source], the class of ImageNet that each is.
    source: the data set, see `data.source`.
    which: how the images were chosen: 'all', 'first by file name' or 'spread
      over the set'.
  """

  count: int
  read: Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]]
  classes: np.ndarray
  source: Any
  which: str


def evaluate_set(
  what: str | os.PathLike,
  *,
  num: int | None = None,
  weights: str | os.PathLike | None = None,
  batch_size: int = BATCH_SIZE,
  keep: str | os.PathLike | None = None,
) -> dict[str, Any]:
  """Measures the error of ResNet-50 on a labelled set.

  Args:
    what: WHAT, see `labelled_set`.
    num: number of images to take; all by default.
    weights: path of torchvision's file; downloaded by default.
    batch_size: images at once.
    keep: folder for partial results, from which a killed run continues; the
      user's cache by default.

  Returns:
    a JSON-able row.

  Raises:
    ValueError: there is no such set, or it has classes that are not ImageNet's.
    OSError: the weights are missing and cannot be downloaded.
  """
  reader = reading(what, labelled_set.section(what), num)
  network, recipe = read_network(weights, batch_size)

  def rank(indices, batch):
    x, labels = batch
    return indices, ranked(network, [x], reader.classes[labels])

  recipe = {
    'data': str(what),
    'fingerprint': reader.source.fingerprint,
  } | recipe
  found = gathered(reader, rank, ('image',), recipe, batch_size, keep)
  return row_of(found, 'image', reader, recipe, samples=str(what))


def evaluate_stage(
  workdir: str | os.PathLike,
  *,
  reference: str | os.PathLike | None = None,
  num: int | None = None,
  seed: int = 0,
  level: float = 0.0,
  overrides: Sequence[tuple[str, str]] = (),
  weights: str | os.PathLike | None = None,
  batch_size: int = BATCH_SIZE,
  keep: str | os.PathLike | None = None,
) -> dict[str, Any]:
  """Measures the error of ResNet-50 on the images of a super-resolution stage.

  Args:
    workdir: work directory of the stage, which `cdm train` wrote.
    reference: WHAT, the original images; the stage's own held-out data by
      default.
    num, weights, batch_size, keep: see `evaluate_set`.
    seed: seed of the samples.
    level: augmentation level in [0, 1] of the low-res input.
    overrides: ((dotted key, text), ...) of the stage's saved config.

  Returns:
    a JSON-able row of the stage; its 'baseline' and 'bicubic' hold the errors
    of the other two versions.

  Raises:
    ValueError: as `evaluate_set`; or the magnification of the stage does not
      divide 224.
    OSError: as `evaluate_set`.
  """
  upscale, saved = restore.restored_upscaler(
    pathlib.Path(workdir),
    level=level,
    batch_size=batch_size,
    overrides=overrides,
  )
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
  reader = reading(what, section, num)
  network, recipe = read_network(weights, batch_size)
  stage_labels = labels_of_stage(upscale, workdir, reader.source)

  def rank(indices, batch):
    x, labels = batch
    low, *versions = shrunk(x, factor, upscale.lowres_size)
    # The batch is padded, so that one shape is compiled: a program for another
    # shape may round otherwise.
    filled = np.resize(
      np.arange(len(indices)), batch_size * collectives.process_count()
    )
    made = upscale(
      low[filled],
      keys=image_pairs(seed, np.asarray(indices)[filled]),
      label=None if stage_labels is None else stage_labels[labels[filled]],
    )[: len(indices)]
    versions += [resized(made, SIDE)]
    rows = list(collectives.local_indices(len(indices)))
    local = [version[rows] for version in versions]
    found = ranked(network, local, reader.classes[labels[rows]])
    return [indices[row] for row in rows], found

  recipe |= {
    'drawn': saved.name,
    'data': what,
    'fingerprint': reader.source.fingerprint,
    'seed': seed,
    'stages': [upscale.record.manifest('name')],
    'weights': 'EMA',
    'sizes': [
      *(SIDE, SIDE // factor, upscale.lowres_size, upscale.image_size, SIDE)
    ],
    'resize': 'bicubic, antialiased, uint8',
  }
  kinds = ('baseline', 'bicubic', 'ours')
  found = gathered(reader, rank, kinds, recipe, batch_size, keep, together=True)
  row = row_of(
    found, 'ours', reader, recipe, samples=str(workdir), reference=what
  )
  for kind in kinds[:2]:
    row[kind] = errors(found[kind])
  row['paper'] = loader.plain(saved.get('paper', {}))
  return row


def reading(
  what: str | os.PathLike, section: dict[str, Any], num: int | None
) -> Reader:
  """Opens a labelled set for ResNet-50.

  Args:
    what: WHAT, for error messages.
    section: the config section of the set, see `labelled_set.section`.
    num: number of images to take, None for all: the first by file name of
      ImageNet's validation set, or spread over any other set.

  Raises:
    ValueError: the set has fewer images than `num`, or classes that are not
      ImageNet's.
  """
  source, _ = labelled_set.opened(what, section)
  if labelled_set.is_named(source):
    classes = imagenet_classes.labels_of(source.class_names)
  elif source.num_classes <= len(imagenet_classes.WORDNET_IDS):
    classes = np.arange(source.num_classes)
  else:
    raise ValueError(f'{what} has {source.num_classes} classes, ImageNet 1000.')
  count = image_source.check_available(what, len(source), num)
  indices, which = range(count), 'all'
  if count < len(source):
    if collectives.is_first():
      print(
        f'looking at the file names of {len(source):,} images ...',
        file=sys.stderr,
      )
    first = subset.first_imagenet_validation(source, count)
    indices = subset.spread_indices(source, count) if first is None else first
    which = 'spread over the set' if first is None else 'first by file name'

  def read(wanted):
    elements = [source[indices[n]] for n in wanted]
    x = [
      transforms.resize_then_center_crop(
        e['image'], short_side=SHORT_SIDE, size=SIDE
      )
      for e in elements
    ]
    return np.stack(x), np.array([e['label'] for e in elements], np.int64)

  return Reader(count, read, classes, source, which)


def read_network(
  weights: str | os.PathLike | None, batch_size: int
) -> tuple[BatchedNetwork, dict[str, Any]]:
  """Reads the weights of ResNet-50.

  Args:
    weights: path of torchvision's file; None downloads it once.
    batch_size: images at once.

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
      f'{resnet.URL.rpartition("/")[2]} (SHA-256 {resnet.SHA256}...), from '
      f'{resnet.URL}.'
    )
  net: Any = resnet.ResNet50(precision='highest')
  variables = resnet.from_pytorch(pytorch_file.read(path), net)
  digest = download.digest(path)

  def logits(variables, image):
    return net.apply(variables, resnet.normalise(image), train=False).logits

  known = digest.startswith(resnet.SHA256)
  recipe = {'network': NETWORK if known else OTHER}
  recipe['classifier_weights_sha256'] = digest
  recipe['preset'] = f'short side {SHORT_SIDE}, bilinear; the middle {SIDE}'
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


def shrunk(
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
  y = resized(x, SIDE // factor)
  return resized(y, tile), x, resized(y, SIDE)


def resized(x: np.ndarray, size: int) -> np.ndarray:
  """Resizes by bicubic, uint8 [n, H, W, 3] -> uint8 [n, size, size, 3]."""
  return np.asarray(resize.resize_uint8(x, size, method='bicubic'))


def ranked(
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


def gathered(
  reader: Reader,
  rank: Callable[[Sequence[int], Any], tuple[Sequence[int], np.ndarray]],
  kinds: Sequence[str],
  recipe: dict[str, Any],
  batch_size: int,
  keep: str | os.PathLike | None,
  **options: bool,
) -> dict[str, np.ndarray]:
  """Ranks all images; partial results are kept on disk until the end.

  Args:
    reader: the images.
    rank, kinds, **options: see `ranks.rank_images`.
    recipe: the manifest of the ranks, which names the partial results.
    batch_size: images at once, in each process.
    keep: see `evaluate_set`.

  Returns:
    {kind: int [count], the ranks}.
  """
  home = download.folder().parent / 'evaluate' if keep is None else keep
  rows = partial_results.image_rows(
    home, [recipe, reader.which, reader.count], prefix=ranks.PREFIX
  )
  found = ranks.rank_images(
    reader.count,
    reader.read,
    rank,
    kinds=kinds,
    rows=rows,
    batch_size=batch_size * collectives.process_count(),
    label='classifying',
    **options,
  )
  rows.remove()
  return found


def errors(found: np.ndarray) -> dict[str, Any]:
  """Computes errors and accuracies of the ranks int [N], shares in [0, 1].

  Returns:
    {'top1_error', 'top5_error', 'top1', 'top5', 'intervals'}, the intervals
    those of the errors.
  """
  row = ranks.numbers_of(found)
  for k in (1, 5):
    row[f'top{k}_error'] = float(np.mean(found >= k))
  row['intervals'] = {
    f'{name}_error': [1.0 - high, 1.0 - low]
    for name, (low, high) in row['intervals'].items()
  }
  return row


def row_of(
  found: dict[str, np.ndarray],
  kind: str,
  reader: Reader,
  recipe: dict[str, Any],
  **named: str,
) -> dict[str, Any]:
  """Returns the row of one version, with all that its numbers depend on.

  Args:
    found, kind: {kind: ranks} of `gathered`, and the version to take.
    reader, recipe: the images, and the manifest of the ranks.
    **named: the first keys of the row: what was evaluated.
  """
  warnings = []
  if not labelled_set.is_named(reader.source):
    warnings.append(
      'the classes have no names: label n is taken for class n of ImageNet'
    )
  if recipe['network'] != NETWORK:
    warnings.append(f'the classifier is a {recipe["network"]}')
  return {
    **named,
    'n': reader.count,
    'which': reader.which,
    **errors(found[kind]),
    'conventions': {'accuracy': f'{top_k.CONVENTION}; error is 1 less it'},
    'warnings': warnings,
    'samples_recipe': recipe,
    'versions': compare_sets.versions(),
  }
