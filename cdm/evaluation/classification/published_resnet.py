"""What a published ResNet-50 makes of images: top-1 and top-5 error.

Of a labelled set (see `labelled_set`): the middle 224 pixels of each image
whose short side is made 256, torchvision's preset.

Of a super-resolution stage, [SR3] tab. 3, on the first 1000 validation images:

  x          the middle 224 pixels, as above     "baseline"
  y          x shrunk by the stage's factor: 56 pixels of a stage 64 -> 256
  bicubic    y enlarged to 224
  ours       y enlarged to the stage's input of 64, super-resolved to 256,
             shrunk to 224

All resizing is bicubic and antialiased, and passes through uint8. [SR3] speaks
of 56 x 56 centre crops that are super-resolved 4x. We take them for the middle
224 pixels shrunk: cut out of the photograph as they are, they would show a
twentieth of it, and the baseline would not have the error that it has, that of
whole crops (.252; torchvision states .239 of all 50,000 images).
"""

import pathlib
import sys
from typing import NamedTuple

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

BATCH_SIZE = 64
SIDE, SHORT_SIDE = 224, 256
NETWORK = "ResNet-50, torchvision's IMAGENET1K_V1"
OTHER = 'ResNet-50 of other weights than the published ones'


class Reader(NamedTuple):
  """Images of a labelled set as ResNet-50 is tested on them.

  Attributes:
    count: how many.
    read: numbers -> (uint8 [n, 224, 224, 3], int [n] labels of the source).
    classes: int [number of the source's classes], classes of ImageNet.
    source: the data set.
    which: 'all', or how they were chosen.
  """

  count: int
  read: object
  classes: np.ndarray
  source: object
  which: str


def evaluate_set(
  what, *, num=None, weights=None, batch_size=BATCH_SIZE, keep=None
):
  """Judges a labelled set.

  Args:
    what: WHAT, see `labelled_set`.
    num: images to take of it; all by default.
    weights: path of torchvision's file; fetched by default.
    batch_size: images at once.
    keep: folder of what was found so far; the user's cache by default.

  Returns:
    JSON-able row.

  Raises:
    ValueError: no such set, or of classes that ImageNet has not.
    OSError: the weights are not there and cannot be fetched.
  """
  reader = reading(what, labelled_set.section(what), num)
  network, recipe = read_network(weights, batch_size)

  def rank(numbers, given):
    x, labels = given
    return numbers, ranked(network, [x], reader.classes[labels])

  recipe = {
    'data': str(what),
    'fingerprint': reader.source.fingerprint,
  } | recipe
  found = gathered(reader, rank, ('image',), recipe, batch_size, keep)
  return row_of(found, 'image', reader, recipe, samples=str(what))


def evaluate_stage(
  workdir,
  *,
  reference=None,
  num=None,
  seed=0,
  level=0.0,
  overrides=(),
  weights=None,
  batch_size=BATCH_SIZE,
  keep=None,
):
  """Judges a super-resolution stage.

  Args:
    workdir: of the stage, as `cdm train` wrote it.
    reference: WHAT, original images; the stage's own held-out data by default.
    num, weights, batch_size, keep: see `of_set`.
    seed: of the samples.
    level: augmentation level of the low-res input.
    overrides: ((dotted key, text), ...) of the stage's saved config.

  Returns:
    JSON-able row; 'baseline' and 'bicubic' are rows of their own in it.

  Raises:
    ValueError, OSError: see `of_set`; or a stage whose factor does not fit.
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
  what = f'{saved.name}:eval' if reference is None else str(reference)
  given = dict(saved.eval_data) if reference is None else None
  reader = reading(what, given or labelled_set.section(reference), num)
  network, recipe = read_network(weights, batch_size)
  told = labels_of_stage(upscale, workdir, reader.source)

  def rank(numbers, given):
    x, labels = given
    low, *versions = shrunk(x, factor, upscale.lowres_size)
    # Filled up, so that one shape is compiled: another may round otherwise.
    filled = np.resize(
      np.arange(len(numbers)), batch_size * collectives.process_count()
    )
    made = upscale(
      low[filled],
      keys=image_pairs(seed, np.asarray(numbers)[filled]),
      label=None if told is None else told[labels[filled]],
    )[: len(numbers)]
    versions += [resized(made, SIDE)]
    rows = list(collectives.local_indices(len(numbers)))
    mine = [version[rows] for version in versions]
    found = ranked(network, mine, reader.classes[labels[rows]])
    return [numbers[row] for row in rows], found

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


def reading(what, section, num):
  """-> Reader of WHAT, whose section is given.

  Raises:
    ValueError: fewer images than `num`, or other classes than ImageNet's.
  """
  source, _ = labelled_set.opened(what, section)
  if labelled_set.is_named(source):
    classes = imagenet_classes.labels_of(source.class_names)
  elif source.num_classes <= len(imagenet_classes.WORDNET_IDS):
    classes = np.arange(source.num_classes)
  else:
    raise ValueError(f'{what} has {source.num_classes} classes, ImageNet 1000.')
  count = image_source.check_available(what, len(source), num)
  numbers, which = range(count), 'all'
  if count < len(source):
    if collectives.is_first():
      print(
        f'looking at the file names of {len(source):,} images ...',
        file=sys.stderr,
      )
    first = subset.first(source, count)
    numbers = subset.spread(source, count) if first is None else first
    which = 'spread over the set' if first is None else 'first by file name'

  def read(wanted):
    elements = [source[numbers[n]] for n in wanted]
    x = [
      transforms.middle(e['image'], short_side=SHORT_SIDE, size=SIDE)
      for e in elements
    ]
    return np.stack(x), np.array([e['label'] for e in elements], np.int64)

  return Reader(count, read, classes, source, which)


def read_network(weights, batch_size):
  """-> (BatchedNetwork, {'network', 'classifier_weights_sha256'}).

  Raises:
    ValueError: the file is not there, or of another network.
    OSError: it cannot be fetched; says what to put where.
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
  net = resnet.ResNet50(precision='highest')
  variables = resnet.from_pytorch(pytorch_file.read(path), net)
  digest = download.digest(path)

  def logits(variables, image):
    return net.apply(variables, resnet.normalise(image), train=False).logits

  known = digest.startswith(resnet.SHA256)
  recipe = {'network': NETWORK if known else OTHER}
  recipe['classifier_weights_sha256'] = digest
  recipe['preset'] = f'short side {SHORT_SIDE}, bilinear; the middle {SIDE}'
  return BatchedNetwork(logits, variables, batch_size=batch_size), recipe


def labels_of_stage(upscale, workdir, source):
  """-> int [the source's classes], what the stage calls them; or None.

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


def shrunk(x, factor, tile):
  """uint8 [n, 224, 224, 3] -> (the stage's input, x itself, bicubic)."""
  y = resized(x, SIDE // factor)
  return resized(y, tile), x, resized(y, SIDE)


def resized(x, size):
  """uint8 [n, H, W, 3] -> NumPy uint8 [n, size, size, 3], bicubic."""
  return np.asarray(resize.resize_uint8(x, size, method='bicubic'))


def ranked(network, versions, classes):
  """-> int [n, number of versions], ranks of the true classes int [n]."""
  if not len(classes):
    return np.zeros((0, len(versions)), np.int64)
  found = [top_k.ranks(network(x), classes) for x in versions]
  return np.stack(found, axis=1)


def gathered(reader, rank, kinds, recipe, batch_size, keep, **given):
  """-> {kind: ranks int [count]}; kept as they come, forgotten at the end."""
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
    **given,
  )
  rows.remove()
  return found


def errors(found):
  """Ranks -> {'top1_error', 'top5_error', 'top1', 'top5', 'intervals'}."""
  row = ranks.numbers_of(found)
  for k in (1, 5):
    row[f'top{k}_error'] = float(np.mean(found >= k))
  row['intervals'] = {
    f'{name}_error': [1.0 - high, 1.0 - low]
    for name, (low, high) in row['intervals'].items()
  }
  return row


def row_of(found, kind, reader, recipe, **named):
  """-> the row of one kind of image, with all that it depends on."""
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
