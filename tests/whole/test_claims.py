"""The pieces of `benchmarks/claims.py` run in order, once, and add up.

A stand-in writes what the commands of cdm would; every command is parsed by
cdm's own parser, and every config is loaded with its overrides.
"""

import functools
import io
import json
import pathlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks import claim_data, claim_faces, claim_runner, claim_tables
from benchmarks import claims as script
from cdm.cli import main as cli
from cdm.config import loader
from cdm.data import npz_dataset
from cdm.evaluation import sweep
from cdm.methods import lowres_conditioning
from cdm.models import pixel_recursive
from cdm.reporting import jsonl

# The distances of the stand-in, over the level of augmentation.
DISTANCES = {0.0: 5.0, 0.05: 4.0, 0.1: 3.0, 0.2: 3.5, 0.4: 6.0}
SCORES = {'cascade': 3.1, 'plain': 5.5, 'blur': 4.5, 'single': 2.9, 'real': 0.1}


class StandIn(claim_runner.Runner):
  """Writes what each command of cdm would write, and costs nothing."""

  def __init__(self, workdirs, names):
    self.workdirs, self.names, self.ran = workdirs, names, []

  def run(self, words, owner):
    argv, overrides = list(words), {}
    for prefix in cli.OVERRIDES:
      argv, overrides[prefix] = cli.split_overrides(argv, prefix)
    args = cli.parse(argv)
    config = None
    if getattr(args, 'config', None):
      config = loader.load(args.config, overrides['--config.'])
    getattr(self, args.command)(args, config)
    self.ran.append((owner, self.shown(words)))

  def usage(self, owner):
    return claim_runner.Usage(0.25, 0.5)

  def train(self, args, config):
    write(args.workdir, 'config.json', loader.to_json(config))
    jsonl.append(
      f'{args.workdir}/scalars.jsonl', [{'step': 9, 'held_out/ema_loss': 0.5}]
    )

  def sweep(self, args, config):
    write(args.out, 'rows.jsonl', '')
    for setting in sweep.settings(args.tries):
      value = float(setting[0][1])
      row = {'setting': setting, 'fd': DISTANCES.get(value, value)}
      jsonl.append(f'{args.out}/rows.jsonl', [row])

  def sample(self, args, config):
    if 'stages' in config:
      assert config.stages[1]['name'] in ('sr', 'sr_plain', 'sr_blur')

  def evaluate(self, args, config):
    if args.make_reference:
      np.savez(args.out, mu=np.zeros(2), sigma=np.eye(2))
    else:
      name = args.out.rpartition('fd_')[2].rpartition('_')[0]
      folder, _, file = args.out.rpartition('/')
      write(folder, file, json.dumps({'fd': SCORES[name]}))

  def cas(self, args, config):
    write(args.workdir, 'row.json', json.dumps({'cas_top1': 40.0}))


def write(folder, name, text):
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  (folder / name).write_text(text, encoding='utf-8')


@pytest.fixture
def run(tmp_path, monkeypatch):
  """-> a function that runs the script; returns the commands that ran."""
  made = []

  def runner(*given):
    made.append(StandIn(*given))
    return made[-1]

  monkeypatch.setattr(claim_runner, 'Runner', runner)
  monkeypatch.setattr(claim_data, 'unpack', lambda *given: None)
  # Published statistics, at a distance of 1 from those of the stand-in.
  arrays = {f'mu_{half}': np.array([1.0, 0.0]) for half in ('test', 'train')}
  arrays |= {f'sigma_{half}': np.eye(2) for half in ('test', 'train')}
  folder = tmp_path / 'runs'
  folder.mkdir()
  np.savez(folder / claim_data.STATISTICS, **arrays)
  monkeypatch.setattr(
    claim_data, 'unpack_network', lambda *given: folder / 'net.npz'
  )

  def call(*words):
    script.main(
      [
        f'--data={tmp_path / "archives"}',
        f'--workdirs={tmp_path / "runs"}',
        f'--out={tmp_path / "rows.jsonl"}',
        *words,
      ]
    )
    return made[-1].ran

  return call


def test_each_piece_runs_once_and_a_sweep_chooses_the_level(
  run, tmp_path, capsys
):
  ran = run('--only=cifar10')
  rows = jsonl.read(tmp_path / 'rows.jsonl')
  assert [r['piece'] for r in rows] == [
    p.name for p in script.CLAIMS['cifar10']()
  ]
  (reference,) = rows[0]['figures']
  assert reference['fd_test_to_published'] == pytest.approx(1.0)
  drawn = [text for _, text in ran if text.startswith('cdm sample')]
  # 0.1 has the least distance; other images than the sweep's are judged.
  assert '--config.stages.1.level=0.1 ' in drawn[0]
  assert '--seed=1000 ' in drawn[0]
  assert str(tmp_path) not in json.dumps(rows)  # no path of this machine
  (trained,) = next(r['figures'] for r in rows if r['piece'] == 'model32')
  # 32 images of 145,743,872 FLOPs a step, as `cdm describe` counts them.
  assert trained['training_flops'] == 3 * 4308 * 32 * 145_743_872
  assert all(r['cpu_core_hours'] == 0.25 for r in rows)
  assert run('--only=cifar10') == []
  run('--only=cifar10/base', '--seed=1')
  assert len(jsonl.read(tmp_path / 'rows.jsonl')) == len(rows) + 1
  capsys.readouterr()
  script.main(['--table', f'--out={tmp_path / "rows.jsonl"}'])
  lines = capsys.readouterr().out.splitlines()
  of_cifar = {
    # The cascade has 3.1 and the stage without augmentation 5.5.
    'noise beats no augmentation': 'FD test | 3.100 | 5.500 | 1 of 1',
    'the cascade beats one model': 'FD test | 3.100 | 2.900 | 0 of 1',
    'some level beats level 0': 'FD train | 3.000 | 5.000 | 1 of 1',
  }
  for claim, figures in of_cifar.items():
    assert f'| CIFAR-10: {claim} | {figures} |' in lines
  assert '| 0.1 | 3.000 | 3.000 |' in lines  # the level, both ways


@pytest.mark.parametrize('claim', script.CLAIMS)
def test_no_two_pieces_have_one_name(claim):
  names = [piece.name for piece in script.CLAIMS[claim]()]
  assert len(names) == len({*names})


def test_a_set_of_faces_that_was_compared_gives_rows(run, tmp_path, capsys):
  methods = {'bicubic': 20.0, 'regression': 24.0, 'pulse': 15.0, 'sr3': 22.0}
  rows = [
    {
      'method': name,
      'path': str(tmp_path / 'trained' / name),
      'scores': {'psnr': psnr, 'consistency': 1e-5 * n, 'fd': 9.0 - n},
      'seconds_per_image': 1.0,
      'cost': {'flops': 10**12},
    }
    for n, (name, psnr) in enumerate(methods.items())
  ]
  found = {'rows': rows, 'settings': {'images': 410}}
  write(tmp_path / 'compared', 'comparison.json', json.dumps(found))
  given = f'--comparison={tmp_path / "compared" / "comparison.json"}'
  ran = run('--only=faces', given)
  text = ran[0][1]
  assert '--samples=FACES/sr3@eval' in text
  assert '--reference=COMPARED/images/sr3/original' in text
  lines = (tmp_path / 'rows.jsonl').read_text(encoding='utf-8').splitlines()
  assert {json.loads(line)['samples'] for line in lines} == {410}
  capsys.readouterr()
  script.main(['--table', f'--out={tmp_path / "rows.jsonl"}'])
  lines = capsys.readouterr().out.splitlines()
  assert (
    '| faces: regression wins PSNR | PSNR, dB | 24.00 | 22.00 | 1 of 1 |'
    in lines
  )
  assert '| 8 | linear, last beta 0.9 | 8.000 |' in lines
  with pytest.raises(SystemExit, match="'prsr'.*--comparison"):
    run('--only=prsr', given)


def test_the_nth_picture_of_a_shard_is_the_nth_label(tmp_path):
  rng = np.random.default_rng(0)
  pictures = rng.integers(0, 256, (1000, 32, 32, 3), np.uint8)
  sheet = Image.new('RGB', (20 * 32, 50 * 32))
  for n, picture in enumerate(pictures):
    row, column = divmod(n, 20)
    sheet.paste(Image.fromarray(picture), (32 * column, 32 * row))
  file, labels = io.BytesIO(), io.BytesIO()
  sheet.save(file, format='WEBP', lossless=True)
  np.save(labels, np.arange(50_000, dtype=np.uint8) % 10)
  for half, name in claim_data.SETS['cifar10'].items():
    with zipfile.ZipFile(tmp_path / name, 'w') as pack:
      pack.writestr(f'cifar10/{half}_00.webp', file.getvalue())
      pack.writestr(f'cifar10/{half}_labels.npy', labels.getvalue())
      if half == 'test':
        classes = {'classes': [f'class {n}' for n in range(10)]}
        pack.writestr('cifar10/meta.json', json.dumps(classes))
  claim_data.unpack('cifar10', tmp_path, tmp_path / 'out')
  for half in ('train', 'test'):
    source = npz_dataset.Archive(tmp_path / 'out' / half / 'images.npz')
    assert len(source) == 1000 and source.class_names[3] == 'class 3'
    np.testing.assert_array_equal(source[123]['image'], pictures[123])
    assert source[123]['label'] == 3


def test_a_command_runs_once_and_its_cpu_time_counts(tmp_path):
  runner = claim_runner.Runner(tmp_path, {tmp_path: 'RUNS'})
  words = ['describe', '--config=configs/smoke.py', '--json']
  for _ in range(2):
    runner.run(words, 'a/b')
  (attempt,) = jsonl.read(tmp_path / 'usage.jsonl')
  assert attempt['code'] == 0 and attempt['cpu_seconds'] > 0.1
  hours = runner.usage('a/b').cpu_core_hours
  assert hours == pytest.approx(attempt['cpu_seconds'] / 3600, abs=1e-4)
  assert runner.usage('another') == (0, 0)
  with pytest.raises(SystemExit, match='ended with 2; see .*log.txt'):
    runner.run(['describe', f'--config={tmp_path / "none.py"}'], 'a/b')
  assert [a['code'] for a in jsonl.read(tmp_path / 'usage.jsonl')] == [0, 2]


def test_likelihood_at_a_temperature_is_that_of_scaled_logits():
  """Against float64 softmax of the network's own logits."""
  net = pixel_recursive.PixelRecursive(
    magnification=2,
    features=6,
    num_layers=1,
    hidden_features=6,
    conditioning_features=4,
    conditioning_blocks=1,
    norm_groups=2,
  )
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (2, 4, 4, 3), np.uint8)
  lowres = lowres_conditioning.Lowres(size=2)
  z = lowres_conditioning.downsample(jnp.asarray(image) / 127.5 - 1, lowres)
  shapes = jax.eval_shape(
    functools.partial(net.init, train=False), jax.random.key(0), image, lowres=z
  )
  params = jax.tree.map(
    lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes['params']
  )
  found = claim_faces.bits_function(net, lowres, [0.5, 1.0, 2.0])(params, image)
  apply = jax.jit(functools.partial(net.apply, train=False))
  both = apply({'params': params}, image, lowres=z)
  logits = np.asarray(both[0] + both[1], np.float64)
  for bits, tau in zip(found, (0.5, 1.0, 2.0), strict=True):
    scaled = tau * (logits - logits.max(axis=-1, keepdims=True))
    log_p = scaled - np.log(np.exp(scaled).sum(axis=-1, keepdims=True))
    of_level = np.take_along_axis(log_p, image[..., None].astype(int), -1)
    expected = -of_level.mean(axis=(1, 2, 3, 4)) / np.log(2)
    np.testing.assert_allclose(bits, expected, rtol=1e-4)


def test_nothing_that_has_been_run_says_so():
  assert claim_tables.markdown([{'smoke': True}]) == 'Nothing has been run.\n'


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--only=cifar'], '--only=cifar: known are cifar10, '),
    (['--workdirs=benchmarks/runs'], 'inside the repository'),
  ],
)
def test_what_cannot_be_run_is_refused(words, message, tmp_path, capsys):
  with pytest.raises(SystemExit):
    script.parse(
      [f'--data={tmp_path}', f'--workdirs={tmp_path}', '--out=x', *words]
    )
  assert message in capsys.readouterr().err
