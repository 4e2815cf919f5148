"""Draws, continues, super-resolves and judges small images, and counts.

As one of several processes it is started with COORDINATOR COUNT INDEX FOLDER,
and writes what it counted into FOLDER/counts-INDEX.json.
"""

import collections
import contextlib
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from PIL import Image

from cdm.data import numbered_names
from cdm.distributed import collectives, device_mesh, initialize
from cdm.evaluation import extract_features, feature_statistics, image_source
from cdm.evaluation.classification import ranks
from cdm.methods.lowres_conditioning import Lowres
from cdm.ops import resize
from cdm.sampling import generate, upscale_files, upscale_inputs, upscaler
from cdm.sampling.cascade import Stage

NUM, PICTURES, HELD_OUT = 22, 9, 10
COLLECTIVES = ('broadcast_one_to_all', 'process_allgather')
_counts: collections.Counter[str] | None = None


def _listen(event, given):
  """Counts what is opened and listed; an audit hook cannot be taken away."""
  if _counts is None or event not in ('open', 'os.listdir', 'os.scandir'):
    return
  path = str(given[0])
  if event != 'open':
    _counts['listed'] += '/results/' in path
  elif path.endswith('.png') and given[1] in ('r', 'rb', None):
    _counts[f'opened in {pathlib.PurePath(path).parts[-2]}'] += 1
    _counts['opened'] += 1


sys.addaudithook(_listen)


@contextlib.contextmanager
def counting():
  """Context: -> a counter of files, listings and collectives inside it."""
  global _counts
  found = _counts = collections.Counter()
  kept = {name: getattr(multihost_utils, name) for name in COLLECTIVES}

  def counted(name):
    def run(value, *given, **more):
      if jax.process_count() > 1:
        found['collectives'] += 1
        found['bytes'] += sum(x.nbytes for x in map(np.asarray, [value]))
      return kept[name](value, *given, **more)

    return run

  for name in COLLECTIVES:
    setattr(multihost_utils, name, counted(name))
  try:
    yield found
  finally:
    _counts = None
    for name, function in kept.items():
      setattr(multihost_utils, name, function)


def stages(mesh):
  """Noise of 4 px, and its magnification to 8."""

  def small(params, *, keys, **_):
    return jax.vmap(lambda key: jax.random.uniform(key, (4, 4, 3)))(keys)

  def large(params, *, keys, lowres, **_):
    return resize.resize(lowres, 8, method='nearest')

  params = jnp.float32(1.0)
  lowres = Lowres(size=4, downsample='area')
  return [
    Stage('small', 4, small, params, mesh=mesh),
    Stage('large', 8, large, params, lowres=lowres, mesh=mesh),
  ]


class Pixels:
  """Stands for the network: some pixels are the features."""

  batch_size = 2
  sizes, metrics = {'fid': 6}, ()

  def start(self, images):
    return images

  def finish(self, images):
    from cdm.models.inception import Features

    flat = images.reshape(len(images), -1).astype(np.float32)
    return Features(flat[:, :6], flat[:, 6:12], flat[:, :12], flat[:, :12])


def gatherer(home):
  """-> a `Gatherer` without the files of a network."""
  made = object.__new__(extract_features.Gatherer)
  made.recipe, made._extractor = {}, Pixels()
  made._keep, made._parts = home, {}
  return made


def work(folder):
  """-> {part of the work: counts} of this process; all of them call it."""
  numbered_names.PER_FOLDER = 4
  results, found = folder / 'results', {}
  mesh = device_mesh.make_mesh(
    devices=jax.devices()[: collectives.process_count()]
  )
  drawn = stages(mesh)

  def draw():
    generate.draw_to_folder(
      results / 'samples',
      drawn,
      manifest={'seed': 0, 'labels': None},
      num=NUM,
      batch_size=8,
    )

  with counting() as found['drawn']:
    draw()
  collectives.barrier('drawn')
  if collectives.is_first():
    (results / 'samples/large/003/000013.png').unlink()
  collectives.barrier('one went')
  with counting() as found['continued']:
    draw()
  collectives.barrier('continued')
  stage = upscaler.stage_upscaler(drawn[1], None, batch_size=4)
  with counting() as found['pictures']:
    inputs = upscale_inputs.check([folder / 'pictures'], results / 'up', tile=4)
    upscale_files.write_upscaled_files(
      results / 'up', stage, inputs, None, seed=0
    )
  originals = np.random.default_rng(1).integers(
    0, 256, (HELD_OUT, 8, 8, 3), dtype=np.uint8
  )
  read = []

  def read_images(numbers, rows=None):
    chosen = list(numbers) if rows is None else [numbers[i] for i in rows]
    read.extend(chosen)
    return originals[chosen], np.zeros(len(chosen), np.int32)

  upscale_files.write_upscaled_held_out(
    results / 'held', stage, read_images, count=HELD_OUT, seed=0, manifest={}
  )
  found['held out'] = {'read': len(read)}
  with counting() as found['judged']:
    source = image_source.open_files(results / 'samples' / 'large', None)
    gathered = gatherer(folder / 'kept')(source, ['fid', 'kid'], 'judged')
  features = feature_statistics.in_order(gathered)
  found['statistics'] = {
    'mean': gathered.pool.mean.tolist(),
    'scatter': gathered.pool.scatter.tolist(),
    'first': features[:, 0].tolist(),
  }
  with counting() as found['ranked']:
    rows = ranks.open_rows(folder / 'kept', ['ranked'], ('image',))
    ranks.rank_images(
      64,
      list,
      lambda numbers, given: (numbers, np.array(given)[:, None]),
      kinds=('image',),
      rows=rows,
      batch_size=4,
      label='ranked',
    )
  return found


def write_pictures(folder):
  """Writes the pictures that are super-resolved."""
  (folder / 'pictures').mkdir(parents=True)
  rng = np.random.default_rng(0)
  for n in range(PICTURES):
    pixels = rng.integers(0, 256, (4, 4 if n % 3 else 9, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / 'pictures' / f'{n}.png')


if __name__ == '__main__':
  address, count, index, folder = sys.argv[1:]
  initialize.join(address, int(count), int(index))
  told = json.dumps(work(pathlib.Path(folder)))
  path = pathlib.Path(folder) / f'counts-{index}.json'
  path.write_text(told, encoding='utf-8')
