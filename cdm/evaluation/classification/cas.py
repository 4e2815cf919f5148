"""The classification accuracy score: what samples teach a classifier.

  a ResNet-50 is trained on labelled samples alone, and tested on real images:
  its top-1 and top-5 accuracy, in percent     [CDM] tab. 1b; [CAS]: Ravuri and
                                               Vinyals 2019, arXiv 1905.10887

What is trained on is a labelled set (see `labelled_set`), or CONFIG.py@WORKDIR:
a trained cascade, whose samples are drawn first and kept in the work directory.
The classes are those of the test data.
"""

import pathlib

from cdm.config import datasets, instantiate, loader, stage
from cdm.data import class_names
from cdm.distributed import collectives
from cdm.evaluation import (
  compare_sets,
  image_source,
  partial_results,
  set_name,
)
from cdm.evaluation.classification import (
  labelled_set,
  ranks,
  trained_classifier,
)
from cdm.evaluation.metrics import top_k
from cdm.sampling import generate, output_folder, restore
from cdm.training import label_check, program, trainer

CLAIM = 'cas.json'  # of the work directory: what its score is of
DRAWN = 'samples'
DRAW_BATCH = 64


def score(
  c,
  workdir,
  *,
  samples=None,
  test=None,
  num=None,
  seed=None,
  batch_size=DRAW_BATCH,
):
  """Draws where asked to, trains, tests; continues what `workdir` holds.

  Args:
    c: ConfigDict of a classifier; changed: its data become what is named.
    workdir: pathlib.Path of the run.
    samples: WHAT to train on; the config's own training data by default.
    test: WHAT to test on; the config's own evaluation data by default.
    num: samples to draw of a cascade.
    seed: of drawn samples; by default that of the cascade's config.
    batch_size: images drawn, and tested, at once.

  Returns:
    (exit code of the training, JSON-able row, or None if it was stopped).

  Raises:
    ValueError: what was given cannot be trained or tested on.
  """
  stage.require_classifier(c, 'cdm cas')
  instantiate.require(c, 'train_data', 'eval_data', 'pipeline', 'paper')
  net = program.assemble(c).built.net  # complain before anything is drawn
  what = f'{c.name}:train' if samples is None else str(samples)
  against = f'{c.name}:eval' if test is None else str(test)
  tests = dict(c.eval_data) if test is None else labelled_set.section(test)
  real, tests = labelled_set.opened(against, tests)
  label_check.check_labels(c, net, real)
  paper = loader.plain(c.paper) if samples is None else {}
  name = set_name.parse(what)
  if samples is None:
    given = dict(c.train_data)
  elif name.kind == 'cascade':
    folder, paper = draw(
      name.path,
      name.workdir,
      workdir / DRAWN,
      num=num,
      seed=seed,
      batch_size=batch_size,
    )
    given = labelled_set.section(folder)
  else:
    given = labelled_set.section(what)
    if same_data(given, c.train_data):
      paper = loader.plain(c.paper)
  names = real.class_names if labelled_set.is_named(real) else None
  source, given = labelled_set.opened(what, given, names)
  if names is None:
    real, tests = labelled_set.opened(against, tests, source.class_names)
  label_check.check_labels(c, net, source)
  c.train_data, c.eval_data = given, tests
  claim(workdir, what, source, against, real)
  code = trainer.train(c, workdir)
  if code:
    return code, None
  row = tested(c, workdir, source, real, what, against, batch_size)
  row['paper'] = paper
  return code, row


def draw(path, where, out, *, num, seed, batch_size):
  """Draws labelled samples of a cascade, continuing what is there.

  Args:
    path, where: of CONFIG.py@WORKDIR.
    out: folder; as `cdm sample` writes it.
    num: samples; all classes in turn (differs: [CAS] sec. 3 draws as many of
      each class as the training data has).
    seed: None is the config's.
    batch_size: at once.

  Returns:
    (out, {name: number} that the cascade's config states).

  Raises:
    ValueError: no number, or a cascade without labels.
  """
  if num is None:
    raise ValueError(
      f'{path}@{where} is drawn before it is trained on: give --num, the '
      'number of samples ([CAS]: as many as there are training images, '
      '1281167 of ImageNet).'
    )
  loaded = loader.load(path, ())
  stages, notes = restore.restored_cascade(loaded, pathlib.Path(where))
  counts = [s.num_classes for s in stages if s.num_classes is not None]
  if not counts:
    raise ValueError(
      f'{path} draws images without a class: there is nothing that a '
      'classifier could learn of them.'
    )
  generate.draw_to(
    out,
    stages,
    recipe={
      'config': loaded.name,
      'seed': loaded.seed if seed is None else seed,
      'labels': list(range(counts[0])),
      'stages': notes,
    },
    num=num,
    batch_size=batch_size,
    class_names=class_names.read(pathlib.Path(where) / notes[0]['folder']),
  )
  return out, loader.plain(loaded.get('paper', {}))


def same_data(given, section):
  """Whether two sections open the same data."""
  return loader.plain(dict(given)) == loader.plain(section)


def claim(workdir, what, source, against, real):
  """Writes what the score is of, or checks what stands there.

  Raises:
    ValueError: the work directory holds the score of another set.
  """
  wanted = {
    'samples': source.fingerprint,
    'test': real.fingerprint,
    'classes': len(source.class_names),
  }

  def refusal(_, key, saved, wanted):
    return (
      f'{workdir} holds the score of another set ({saved["named"][0]} tested '
      f'on {saved["named"][1]}): {key} is {saved[key]!r} there and '
      f'{wanted[key]!r} of {what} tested on {against}. Give another --workdir.'
    )

  output_folder.claim(
    workdir,
    wanted,
    name=CLAIM,
    notes={'named': [what, against]},
    refusal=refusal,
  )


def tested(c, workdir, source, real, what, against, batch_size):
  """Tests the trained classifier. -> the row."""
  network, step = trained_classifier.restored(
    c, workdir, source, batch_size=batch_size
  )
  count = len(real)
  read = datasets.read_held_out(c, count)
  rows = partial_results.image_rows(
    workdir,
    [step, loader.plain(c), source.fingerprint, real.fingerprint],
    prefix=ranks.PREFIX,
  )
  found = ranks.rank_images(
    count,
    read,
    trained_classifier.ranker(network),
    kinds=('image',),
    rows=rows,
    batch_size=batch_size * collectives.process_count(),
    label='testing',
  )['image']
  rows.remove()
  numbers = ranks.numbers_of(found)
  percent = {f'cas_{name}': 100 * numbers[name] for name in ('top1', 'top5')}
  intervals = {
    f'cas_{name}': [100 * end for end in ends]
    for name, ends in numbers['intervals'].items()
  }
  return {
    'samples': what,
    'reference': against,
    'trained_on': len(source),
    'n': count,
    **percent,
    'intervals': intervals,
    'classes': source.num_classes,
    'conventions': {
      'cas': f'{top_k.CONVENTION}; in percent; the middle '
      f'{c.method.size} of {c.pipeline.image_size} pixels',
    },
    'warnings': doubts(source, real),
    'samples_recipe': described(c.train_data, source),
    'reference_recipe': described(c.eval_data, real),
    'classifier': {
      'config': c.name,
      'checkpoint': step,
      **{
        name: loader.plain(c[name])
        for name in ('model', 'method', 'pipeline', 'optimizer', 'ema', 'seed')
      },
      'batch_size': c.train.batch_size,
      'num_steps': c.train.num_steps,
    },
    'versions': compare_sets.versions(),
  }


def described(section, source):
  """-> JSON-able dict of all that a set of images depends on."""
  plain = loader.plain(section)
  plain.pop('class_names', None)  # a thousand of them say nothing more
  recipe = {'data': plain, 'fingerprint': source.fingerprint}
  recipe['count'] = len(source)
  if plain['kind'] == 'archive':
    recipe |= image_source.describe_samples(plain['path'])
  return recipe


def doubts(source, real):
  """-> sentences on what makes the number another one than the paper's."""
  found = []
  for name, one in (('samples', source), ('test images', real)):
    if not labelled_set.is_named(one):
      found.append(
        f'the classes of the {name} have no names: label n is taken for class n'
      )
  return found
