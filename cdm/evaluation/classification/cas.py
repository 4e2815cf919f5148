"""Computes the classification accuracy score (CAS) of labelled samples.

  CAS = top-1 and top-5 accuracy, in percent, on real images of a ResNet-50
        trained on the samples alone     [CDM] tab. 1b; [CAS]: Ravuri and
                                         Vinyals 2019, arXiv 1905.10887

The samples are a labelled set (see `labelled_set`), or CONFIG.py@WORKDIR: a
trained cascade, whose samples are drawn first and kept in the work directory.
The classes are those of the test data.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from cdm.config import (
  class_agreement,
  datasets,
  evaluated_images,
  instantiate,
  loader,
  stage,
)
from cdm.data import class_names
from cdm.distributed import collectives, initialize
from cdm.evaluation import (
  compare_sets,
  image_source,
  set_name,
)
from cdm.evaluation.batched_network import BatchedNetwork, judged_at_once
from cdm.evaluation.classification import (
  labelled_set,
  ranks,
  trained_classifier,
)
from cdm.evaluation.metrics import top_k
from cdm.evaluation.row_types import (
  Accuracy,
  CasRow,
  ClassifierManifest,
  ImageManifest,
)
from cdm.sampling import (
  drawing_batch,
  generate,
  output_folder,
  restore,
  sample_storage,
)
from cdm.training import program, trainer
from cdm.training.preemption import Stop

MANIFEST = 'cas.json'  # names the sets that a work directory scores
SAMPLES = 'samples'  # folder of the drawn samples in the work directory
TEST_BATCH = 64


class Drawing(NamedTuple):
  """How samples are drawn from a cascade.

  Attributes:
    num: number of samples; the classes take turns (differs: [CAS] sec. 3 draws
      as many samples of each class as the training data has).
    seed: seed of the samples; None is the seed of the cascade's config.
    at: checkpoint of every stage, see `checkpointing.reader.resolve`.
    batch_per_device: images at once on each device, see `drawing_batch`.
    redraws: see `restore.restored_cascade`.
  """

  num: int | None = None
  seed: int | None = None
  at: int | str | None = None
  batch_per_device: int | None = None
  redraws: Sequence[tuple[str, str]] = ()


NOTHING_GIVEN = Drawing()


def score(
  c: loader.ConfigDict,
  workdir: pathlib.Path,
  *,
  samples: str | os.PathLike | None = None,
  test: str | os.PathLike | None = None,
  drawing: Drawing = NOTHING_GIVEN,
  batch_size: int | None = None,
) -> tuple[int, CasRow | None]:
  """Trains a classifier on samples and tests it; draws the samples if needed.

  A run that was killed is continued from what `workdir` holds.

  Args:
    c: config of a classifier. It is changed: its `train_data` and `eval_data`
      become the sets that `samples` and `test` name.
    workdir: work directory of the run.
    samples: WHAT to train on; the config's own training data by default.
    test: WHAT to test on; the config's own evaluation data by default.
    drawing: how samples are drawn from a cascade.
    batch_size: images per batch when testing, in each process; None chooses
      it.

  Returns:
    (exit code of the training, row). The row is None if the training was
    stopped.

  Raises:
    ValueError: the config or the sets cannot be trained or tested on.
  """
  batch_size = batch_size or judged_at_once(TEST_BATCH, on_cpus=TEST_BATCH)
  stage.require_classifier(c, 'cdm cas')
  instantiate.require(c, 'train_data', 'eval_data', 'pipeline', 'paper')
  # A config that cannot be built is refused here, before anything is drawn.
  net = program.assemble(c).built.net
  what = f'{c.name}:train' if samples is None else str(samples)
  against = f'{c.name}:eval' if test is None else str(test)
  tests = dict(c.eval_data) if test is None else labelled_set.section(test)
  real, tests = labelled_set.open_set(against, tests)
  class_agreement.check_training(c, net.num_classes, real, 'eval_data')
  paper = loader.plain(c.paper) if samples is None else {}
  name = set_name.parse(what)
  if samples is None:
    given = dict(c.train_data)
  elif name.kind == 'cascade':
    assert name.path is not None and name.workdir is not None
    folder, paper = draw(
      name.path,
      name.workdir,
      workdir / SAMPLES,
      drawing,
    )
    given = labelled_set.section(folder)
  else:
    given = labelled_set.section(what)
    if same_data(given, c.train_data):
      paper = loader.plain(c.paper)
  # A test set that may lack classes is matched with the samples, not they
  # with it.
  fewer = datasets.allows_missing_classes(c.eval_data, 'eval_data')
  leads = labelled_set.is_named(real) and not fewer
  names = real.class_names if leads else None
  source, given = labelled_set.open_set(what, given, names)
  if names is None:
    real, tests = labelled_set.open_set(against, tests, source.class_names)
  class_agreement.check_training(c, net.num_classes, source)
  c.train_data = _with_waiver(given, c.train_data)
  c.eval_data = _with_waiver(tests, c.eval_data)
  claim_workdir(workdir, what, source, against, real)
  code = train_together(c, workdir)
  if code:
    return code, None
  network, step = trained_classifier.restore(
    c, workdir, source, batch_size=batch_size
  )
  accuracy = measure_accuracy(
    c, workdir, network, step, (source, real), batch_size
  )
  row: CasRow = {
    'samples': what,
    'reference': against,
    'trained_on': len(source),
    'n': len(real),
    'cas_top1': 100 * accuracy['top1'],
    'cas_top5': 100 * accuracy['top5'],
    'intervals': {
      f'cas_{name}': [100 * end for end in ends]
      for name, ends in accuracy['intervals'].items()
    },
    'classes': source.num_classes,
    'conventions': {
      'cas': f'{top_k.CONVENTION}; in percent; the middle '
      f'{c.method.size} of {c.pipeline.image_size} pixels',
    },
    'warnings': naming_warnings(source, real),
    'samples_recipe': describe_set(c.train_data, source),
    'reference_recipe': describe_set(c.eval_data, real),
    'classifier': describe_classifier(c, step),
    'versions': compare_sets.versions(),
    'paper': paper,
  }
  return code, row


def _with_waiver(section, before):
  """Returns a data section that may lack classes if the one before might."""
  if not datasets.allows_missing_classes(before):
    return section
  return {**section, datasets.ALLOW_MISSING: True}


def train_together(c: loader.ConfigDict, workdir: pathlib.Path) -> int:
  """Trains the classifier; SIGTERM to one process stops all at one step.

  Before and after the training, SIGTERM ends the process at once, because
  nobody would look at it: what was drawn or tested is kept, and
  `peer_monitor` ends the other processes.

  Args:
    c: config of the classifier.
    workdir: work directory of the run.

  Returns:
    Exit code of the training, see `trainer.train`.
  """
  with Stop() as stop:
    initialize.share_sigterm()
    stop.agree()
    return trainer.train(c, workdir, stop=stop)


def draw(
  path: str,
  where: str,
  out: pathlib.Path,
  drawing: Drawing,
) -> tuple[pathlib.Path, dict[str, float]]:
  """Draws labelled samples from a cascade; an unfinished folder is continued.

  Args:
    path: the cascade's CONFIG.py.
    where: the cascade's WORKDIR.
    out: output folder, written as `cdm sample` writes it.
    drawing: how they are drawn.

  Returns:
    (out, {name: number} of the paper, as the cascade's config states them).

  Raises:
    ValueError: `num` is None, or the cascade takes no labels.
  """
  num, seed = drawing.num, drawing.seed
  if num is None:
    raise ValueError(
      f'{path}@{where} is drawn before it is trained on: give --num, the '
      'number of samples ([CAS]: as many as there are training images, '
      '1281167 of ImageNet).'
    )
  loaded = loader.load(path, ())
  stages, notes = restore.restored_cascade(
    loaded, pathlib.Path(where), at=drawing.at, redraws=drawing.redraws
  )
  counts = [s.num_classes for s in stages if s.num_classes is not None]
  if not counts:
    raise ValueError(
      f'{path} draws images without a class, from which a classifier can learn '
      'nothing.'
    )
  storage = sample_storage.choose(out, stages, num=num)
  sample_storage.announce(storage)
  generate.draw_to_folder(
    out,
    stages,
    manifest={
      'config': loaded.name,
      'seed': loaded.seed if seed is None else seed,
      'labels': list(range(counts[0])),
      'stages': notes,
    },
    num=num,
    batch_size=drawing_batch.batch_size(
      stages, num=num, per_device=drawing.batch_per_device
    ),
    class_names=class_names.read(pathlib.Path(where) / notes[0]['folder']),
    storage=storage,
  )
  return out, loader.plain(loaded.get('paper', {}))


def same_data(given: Mapping[str, Any], section: Mapping[str, Any]) -> bool:
  """Returns whether two config sections open the same data."""
  return loader.plain(dict(given)) == loader.plain(section)


def claim_workdir(
  workdir: pathlib.Path,
  what: str,
  source: Any,
  against: str,
  real: Any,
) -> None:
  """Writes the manifest of the score, or checks the existing one.

  Args:
    workdir: work directory of the run.
    what, source: WHAT is trained on, and its source.
    against, real: WHAT is tested on, and its source.

  Raises:
    ValueError: the work directory holds the score of other sets.
  """
  wanted = {
    'samples': source.fingerprint,
    'test': real.fingerprint,
    'classes': len(source.class_names),
  }

  def refusal(_, key, saved, wanted):
    named = ' tested on '.join(map(str, saved.get('named') or ('?', '?')))
    return (
      f'{workdir} holds the score of another set ({named}): {key} is '
      f'{saved.get(key)!r} there and {wanted[key]!r} of {what} tested on '
      f'{against}. Give another --workdir.'
    )

  output_folder.claim(
    workdir,
    wanted,
    name=MANIFEST,
    notes={'named': [what, against]},
    refusal=refusal,
  )


def measure_accuracy(
  c: loader.ConfigDict,
  workdir: pathlib.Path,
  network: BatchedNetwork,
  step: int,
  sources: tuple[Any, Any],
  batch_size: int,
) -> Accuracy:
  """Tests the trained classifier; a test that was killed is continued.

  Args:
    c: config of the classifier, with the data that it was trained on.
    workdir: work directory of the run.
    network: the classifier.
    step: step of its checkpoint.
    sources: the sources of the samples and of the test images.
    batch_size: images per batch, in each process.
  """
  source, real = sources
  count = len(real)
  rows = ranks.open_rows(
    workdir,
    [step, loader.plain(c), source.fingerprint, real.fingerprint],
    ('image',),
  )
  found = ranks.rank_images(
    count,
    evaluated_images.read_held_out(c, count),
    trained_classifier.ranker(network),
    kinds=('image',),
    rows=rows,
    batch_size=batch_size * collectives.process_count(),
    label='testing',
  )
  rows.remove()
  return ranks.accuracy(found['image'])


def describe_classifier(c: loader.ConfigDict, step: int) -> ClassifierManifest:
  """Returns the manifest of the classifier and its training.

  Args:
    c: config of the classifier.
    step: step of its checkpoint.
  """
  manifest = {
    'config': c.name,
    'checkpoint': step,
    **{
      name: loader.plain(c[name])
      for name in ('model', 'method', 'pipeline', 'optimizer', 'ema', 'seed')
    },
    'batch_size': c.train.batch_size,
    'num_steps': c.train.num_steps,
  }
  return cast(ClassifierManifest, manifest)


def describe_set(section: Mapping[str, Any], source: Any) -> ImageManifest:
  """Returns the manifest of a set of images: everything that it depends on.

  Args:
    section: the config section that opens it.
    source: its source.
  """
  plain = loader.plain(section)
  plain.pop('class_names', None)  # up to a thousand names would add nothing
  recipe: ImageManifest = {
    'data': plain,
    'fingerprint': source.fingerprint,
    'count': len(source),
  }
  if plain['kind'] in ('archive', 'array_records'):
    recipe |= image_source.describe_samples(plain['path'])
  return recipe


def naming_warnings(source: Any, real: Any) -> list[str]:
  """Returns warnings that the score may not be comparable with the paper's.

  Args:
    source: source of the samples.
    real: source of the test images.
  """
  return [
    f'the classes of the {name} have no names: label n is taken for class n'
    for name, data in (('samples', source), ('test images', real))
    if not labelled_set.is_named(data)
  ]
