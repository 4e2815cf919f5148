"""Names every reader of cdm with the sound files that `fuzz` damages.

A reader is made in a folder of its own and has

  seeds         sound files, a list of bytes
  place(data)   writes an input to where it belongs, and returns its path
  read(path)    reads it as the commands do
"""

import io
import json
import shutil
import tarfile

import numpy as np
from PIL import Image

from benchmarks import fuzz_weights


class Reader:
  """A reader of one file, which is placed under one name."""

  def __init__(self, path, seeds, read):
    self._path, self.seeds, self.read = path, seeds, read

  def place(self, data):
    self._path.write_bytes(data)
    return self._path


def text(value):
  return json.dumps(value, indent=1).encode()


def lines(rows):
  return b''.join(json.dumps(row).encode() + b'\n' for row in rows)


# -- JSON ---------------------------------------------------------------------

CONFIG = {
  'name': 'photos8',
  'seed': 0,
  'pipeline': {'image_size': 8, 'crop': 'center'},
  'train': {'batch_size': 32, 'num_steps': 100, 'rates': [1e-4, 1e-5]},
  'lowres': {'size': 4, 'downsample': 'bicubic'},
  'sampler': {'kind': 'ddim', 'num_steps': 4},
}


def saved_config(folder):
  from cdm.config import loader
  from cdm.training import run_report

  def read(path):
    loader.override_all(loader.read_json(path), [('train.batch_size', '2')])
    show({**nothing(), 'runs': [run_report.run_facts(folder)]})

  seeds = [text(CONFIG), text({**CONFIG, 'lowres': None})]
  return Reader(folder / 'config.json', seeds, read)


def nothing():
  return {'runs': [], 'samples': None, 'upscaled': None, 'quality': None}


def show(summary):
  """Makes the text and the page of `cdm report`."""
  from cdm.evaluation import metrics_table
  from cdm.training import run_report

  numbers = metrics_table.numbers()
  run_report.text(summary, numbers=numbers)
  run_report.html(summary, title='x', numbers=numbers)


def row_of_scores(folder):
  from cdm.training import quality_row

  scores = {'psnr': 20.5, 'ssim': 0.5, 'consistency': 1e-5}
  row = {
    **scores,
    'n': 3,
    'image_size': [8, 8],
    'conventions': {'psnr': 'of all channels'},
    'bicubic': {**scores, 'psnr': None},
  }

  def read(path):
    quality = quality_row.read_row(path)
    summary = {**nothing(), 'quality': quality}
    show(summary)

  return Reader(folder / 'row.json', [text(row)], read)


def manifest(folder):
  from cdm.evaluation import image_source
  from cdm.sampling import output_folder

  recipe = {'config': 'x', 'seed': 0, 'labels': [0, 1], 'stages': [{'a': 1}]}

  def read(path):
    output_folder.claim(folder, recipe, name=path.name)
    image_source.describe_samples(folder)

  return Reader(folder / 'sampling.json', [text(recipe)], read)


def rollbacks(folder):
  from cdm.data import pipeline_state
  from cdm.training import rollback

  order = {'records': 9, 'seed': 0, 'shuffle': True}
  skipped = {'tried': 9, 'unreadable': 0, 'too_small': 0}
  position = {'position': 9, 'order': order, 'skipped': skipped}
  entries = [
    {'to': 2, 'bad': 3, 'why': 'not finite', 'position': position},
    {'to': 4, 'bad': 5, 'why': 'not finite', 'position': None},
  ]

  def read(path):
    found = rollback.Rollbacks(folder, limit=3)
    found.permitted()
    for entry in entries:
      state = found.position(entry['to'])
      if state is not None:
        pipeline_state.check(state)

  return Reader(folder / rollback.FILE, [text(entries)], read)


def names_of_classes(folder):
  from cdm.data import class_names

  def read(path):
    names = class_names.read(folder)
    class_names.find_labels('0,1', names, len(names or ()))

  return Reader(folder / 'classes.json', [text(['dog', 'Hündin', '3'])], read)


def checksums_of_files(folder):
  from cdm.checkpointing import checksums

  (folder / 'config').mkdir()
  (folder / 'config' / 'metadata').write_text('{}', encoding='utf-8')
  (folder / 'values').write_bytes(bytes(1000))
  checksums.write(folder)
  path = folder / checksums.FILE

  def read(path):
    checksums.check(folder, below='config')
    checksums.check(folder)

  return Reader(path, [path.read_bytes()], read)


def plan_results(folder):
  from cdm.planning import compilation

  facts = {
    'compiled': True,
    'message': None,
    'seconds': 1.0,
    'needed_bytes': 9,
    'memory': dict.fromkeys(
      ('arguments', 'outputs', 'donated', 'temporaries', 'program'), 1
    ),
    'flops': 1.0,
    'bytes_accessed': 1.0,
    'collectives': {},
    'loops': [2],
    'rematerialized': 0,
    'compiler': 'jaxlib 0',
  }
  refused = dict.fromkeys(facts) | {'compiled': False, 'message': 'no'}
  refused |= {'seconds': 1.0, 'needed_bytes': 9, 'compiler': 'x'}
  seeds = [text(facts), text(refused)]
  return Reader(folder / 'x.json', seeds, compilation.read_kept)


def groups_of_images(folder):
  from cdm.evaluation import groups

  value = {str(n): {'age': 'old', 'sex': 'fm'[n % 2]} for n in range(6)}

  def read(path):
    found, columns = groups.read(path)
    groups.divisions(columns, dict(enumerate(found.values())))

  path = folder / 'groups.json'
  return Reader(path, [text(value), text({'1': 'f', '2': 'm'})], read)


def csv_of_groups(folder):
  reader = groups_of_images(folder)
  table = 'image,age,sex\n1,old,f\n2,"young, ""er""",m\n3,old,m\n'
  seeds = [table.encode(), table.encode('latin-1'), b'image,sex\r\na,f\r\nb,m']
  return Reader(folder / 'groups.csv', seeds, reader.read)


# -- lines of JSON ------------------------------------------------------------


def scalars(folder):
  from cdm.reporting import metric_writer
  from cdm.training import run_report

  rows = [{'step': n, 'loss': 1 / (n + 1), 'lr': 1e-4} for n in range(9)]
  rows.append({'step': 9, 'loss': None, 'images_per_second': 1.5})
  (folder / 'config.json').write_bytes(text(CONFIG))

  def read(path):
    summary = {**nothing(), 'runs': [run_report.run_facts(folder)]}
    show(summary)
    writer = metric_writer.Reporter(folder, tensorboard=False, quiet=True)
    with writer as reporter:
      reporter.resume(5)

  return Reader(folder / 'scalars.jsonl', [lines(rows)], read)


def sessions(folder):
  from cdm.reporting import session_log

  rows = [
    {'what': 'train', 'seconds': 3.5 + n, 'peak_host_bytes': 10**9 + n}
    for n in range(4)
  ]
  rows[1] |= {'ended': 'complete', 'exit_code': 0, 'first_step': 1}
  return Reader(
    folder / 'sessions.jsonl',
    [lines(rows)],
    lambda path: session_log.total(folder),
  )


def rows_of_robustness(folder):
  from cdm.evaluation.metrics import calibration
  from cdm.evaluation.robustness import aggregate, scoring
  from cdm.reporting import jsonl

  rng = np.random.default_rng(0)
  rows = []
  for n in range(4):
    images = rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    tally = calibration.tally(images[:3], images[3])
    rows.append(
      {
        'record': n,
        'k': 3,
        'psnr_of_one': 20.0,
        'psnr_of_mean': None,
        'tally': [np.asarray(part).tolist() for part in tally],
      }
    )

  def read(path):
    kept = jsonl.ResumableRows(
      path,
      lambda row: scoring.key_of_draws(row, 3),
      declared=scoring.DRAWS_ROW,
    )
    kept.missing(range(4))
    if kept.rows:
      aggregate.summarize_draws(kept.rows, list(kept.rows), 3)

  return Reader(folder / 'draws.jsonl', [lines(rows)], read)


def rows_of_ranks(folder):
  from cdm.evaluation.classification import ranks

  rows = ranks.open_rows(folder, [], ('a', 'b'))
  rows.append([[n, n % 3, 1] for n in range(6)])
  (path,) = folder.glob('*/*.jsonl')

  def read(_):
    found = ranks.open_rows(folder, [], ('a', 'b'))
    np.array([row[1:] for row in found.rows.values()], np.int64)

  return Reader(path, [path.read_bytes()], read)


# -- arrays -------------------------------------------------------------------


def npz(**arrays):
  made = []
  for save in (np.savez, np.savez_compressed):
    file = io.BytesIO()
    save(file, **arrays)
    made.append(file.getvalue())
  return made


def images_of_npz(folder):
  from cdm.data import image_set

  def read(path):
    images = image_set.load_images(path)
    for i in range(min(3, images.count)):
      images.read(i)

  return Reader(folder / 'x.npz', npz(arr_0=random_images()), read)


def labelled_npz(folder):
  from cdm.data import npz_dataset

  def read(path):
    source = npz_dataset.Archive(path)
    source.fingerprint, source[0], source[len(source) - 1]

  seeds = npz(arr_0=random_images(), arr_1=np.arange(5) % 3)
  seeds += npz(arr_0=random_images(), arr_1=np.array([0, 1, 10**8, 2**40, 3]))
  return Reader(folder / 'x.npz', seeds, read)


def random_images():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)


def statistics(folder):
  from cdm.evaluation import reference_statistics

  rng = np.random.default_rng(0)
  features = rng.normal(size=(20, 4))
  cov, recipe = np.cov(features.T), json.dumps({'image_size': [8, 8]})
  seeds = npz(mu=features.mean(0), sigma=cov, count=20, recipe=recipe)
  seeds += npz(mu=features.mean(0), sigma=cov, mu_s=np.zeros(4), sigma_s=cov)

  def read(path):
    if reference_statistics.holds(path):
      found = reference_statistics.read(path)
      reference_statistics.differences({}, found.recipe)

  return Reader(folder / 'x.npz', seeds, read)


def partial_results(folder):
  from cdm.evaluation import partial_results

  def read(path):
    partial_results.PartialResults(folder).newest()

  path = folder / 'process-0-batches-3.npz'
  return Reader(path, npz(count=np.array(3), mean=np.ones(40)), read)


# -- weights ------------------------------------------------------------------


def pytorch(folder):
  from cdm.models.pretrained import pytorch_file

  def read(path):
    for array in pytorch_file.read(path).values():
      array.sum()

  return Reader(folder / 'x.pth', fuzz_weights.pytorch(), read)


def tensorflow(folder):
  from cdm.models.pretrained import tensorflow_graph

  def read(path):
    arrays = tensorflow_graph.constants(path.read_bytes(), str(path))
    for array in arrays.values():
      array.flat[:10].sum()

  return Reader(folder / 'x.pb', [fuzz_weights.graph()], read)


def packed_graph(folder):
  from cdm.models.pretrained import inception, tensorflow_graph

  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w:gz') as archive:
    content = fuzz_weights.graph()
    for name in ('README', inception.GRAPH):
      member = tarfile.TarInfo(name)
      member.size = len(content)
      archive.addfile(member, io.BytesIO(content))

  def read(path):
    tensorflow_graph.constants(inception._unpacked(path), str(path))

  return Reader(folder / 'x.tgz', [file.getvalue()], read)


# -- prepared data sets -------------------------------------------------------


def prepared(folder):
  from cdm.data import prepare, synthetic

  source = synthetic.Synthetic(image_size=8, num_images=12)
  out = folder / 'prepared'
  prepare.prepare(source, size=8, out=out, records_per_shard=5)
  return out


def read_prepared(folder):
  from cdm.data import array_record, transforms

  source = array_record.ArrayRecords(folder)
  for i in range(len(source)):
    try:
      source[i]
    except transforms.BadImage:
      pass  # the pipeline counts these


def index_of_shards(folder):
  path = prepared(folder) / 'index.json'
  return Reader(path, [path.read_bytes()], lambda p: read_prepared(p.parent))


def shard(folder):
  path = min(prepared(folder).glob('*.array_record'))
  return Reader(path, [path.read_bytes()], lambda p: read_prepared(p.parent))


def record(folder):
  from cdm.data import record_format, synthetic, transforms

  source = synthetic.Synthetic(image_size=8, num_images=2)
  seeds = [record_format.pack(source[i]) for i in range(2)]
  seeds.append(record_format.pack_bad(transforms.BadImage('a.png', 'cut off')))
  return Reader(
    folder / 'record',
    seeds,
    lambda path: record_format.unpack(path.read_bytes(), name='x'),
  )


def tfrecord(folder):
  from cdm.data import convert_tfrecord

  seed = b''.join(
    len(data).to_bytes(8, 'little') + bytes(4) + data + bytes(4)
    for data in (b'a' * 30, b'', b'b' * 100)
  )

  def read(path):
    for _ in convert_tfrecord.tfrecords(path):
      pass

  return Reader(folder / 'x.tfrecord', [seed], read)


def info_of_tfds(folder):
  from cdm.data import convert_tfrecord

  info = {
    'name': 'x',
    'fileFormat': 'tfrecord',
    'splits': [{'name': 'train', 'shardLengths': ['1', 2]}],
  }
  return Reader(
    folder / 'dataset_info.json',
    [text(info)],
    lambda path: convert_tfrecord.convert(path.parent),
  )


# -- checkpoints --------------------------------------------------------------


def checkpoint_config(folder):
  """The files of a checkpoint that its config is read from."""
  from cdm.checkpointing import reader, verification, writer
  from cdm.config import loader

  state = {'ema_params': {'w': np.ones(3, np.float32)}}
  with writer.Checkpointer(folder, config=json.dumps(CONFIG)) as saver:
    saver.save(1, state, data_state={'next': 1})
  whole = folder / 'checkpoints' / '1'
  copy = folder / 'copy'
  shutil.copytree(whole, copy)
  names = ['config/metadata', 'checksums.json', '_CHECKPOINT_METADATA']

  class Several(Reader):
    """Damages one file of the checkpoint, and leaves out the checksums."""

    def place(self, data):
      shutil.rmtree(whole)
      shutil.copytree(copy, whole)
      name = names[sum(data[:64]) % len(names)]
      (whole / name).write_bytes(data)
      if name == 'config/metadata' and sum(data[-9:]) % 2:
        (whole / 'checksums.json').unlink()
      return folder

  def read(path):
    reader.complete_steps(path)
    loader.from_json(reader.read_config(path), path)
    verification.verify(whole)

  seeds = [(copy / name).read_bytes() for name in names]
  return Several(folder, seeds, read)


# -- pictures and words -------------------------------------------------------


def pictures(folder):
  from cdm.data import image_decoder

  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 256, (12, 10, 3)).astype(np.uint8)
  image, seeds = Image.fromarray(pixels), []
  exif = Image.Exif()
  exif[0x0112] = 6
  for kind, options in (
    ('PNG', {}),
    ('JPEG', {'exif': exif}),
    ('JPEG', {'progressive': True}),
    ('WEBP', {}),
    ('WEBP', {'lossless': True}),
    ('GIF', {}),
    ('BMP', {}),
    ('PPM', {}),
    ('TIFF', {}),
    ('TIFF', {'compression': 'tiff_lzw'}),
  ):
    file = io.BytesIO()
    image.save(file, kind, **options)
    seeds.append(file.getvalue())
  for mode in ('I;16', 'LA', 'P', '1', 'RGBA'):
    file = io.BytesIO()
    grey = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    (grey if mode == 'I;16' else image.convert(mode)).save(file, 'PNG')
    seeds.append(file.getvalue())

  def read(path):
    image_decoder.decode(path.read_bytes(), name=str(path))

  return Reader(folder / 'picture', seeds, read)


def overrides(folder):
  from cdm.config import loader

  keys = ('train.batch_size', 'train.rates', 'lowres.size', 'sampler.kind')
  seeds = [b'1', b'0.5', b'(1, 2)', b'True', b'-5', b"'a'", b'[1, 2]', b'{}']

  def read(path):
    value = path.read_bytes().decode('utf-8', 'surrogateescape')
    config = loader.from_json(json.dumps(CONFIG), 'x')
    loader.override_all(config, [(keys[len(value) % len(keys)], value)])

  return Reader(folder / 'value', seeds, read)


READERS = {
  'saved config': saved_config,
  'row of scores': row_of_scores,
  'manifest of an output folder': manifest,
  'rollbacks': rollbacks,
  'class names': names_of_classes,
  'checksums': checksums_of_files,
  'results of plan': plan_results,
  'groups, JSON': groups_of_images,
  'groups, CSV': csv_of_groups,
  'scalars.jsonl': scalars,
  'sessions.jsonl': sessions,
  'draws.jsonl': rows_of_robustness,
  'ranks': rows_of_ranks,
  'images in .npz': images_of_npz,
  'labelled .npz': labelled_npz,
  'statistics .npz': statistics,
  'partial results .npz': partial_results,
  'PyTorch .pth': pytorch,
  'TensorFlow .pb': tensorflow,
  'TensorFlow .tgz': packed_graph,
  'index of shards': index_of_shards,
  'shard': shard,
  'record of a shard': record,
  'TFRecord': tfrecord,
  'dataset_info.json': info_of_tfds,
  'checkpoint': checkpoint_config,
  'picture': pictures,
  'value of --config': overrides,
}
