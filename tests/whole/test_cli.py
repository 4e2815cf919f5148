"""The door: help that helps, and one clear line for every bad input."""

import contextlib
import io
import json
import os
import re
import select
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image
from support import smoke_runs

from cdm.checkpointing import packed_stage
from cdm.cli import main
from cdm.cli.commands import prepare as prepare_command
from cdm.cli.commands import upscale as upscale_command
from cdm.data import array_record, prepare
from cdm.distributed import exit_codes
from cdm.reporting import progress
from cdm.sampling import generate, restore, shipped_model
from cdm.training import running_metrics, trainer

SMOKE = f'--config={smoke_runs.CONFIGS / "smoke.py"}'
SMOKE_SR = f'--config={smoke_runs.CONFIGS / "smoke_sr.py"}'
CASCADE = f'--config={smoke_runs.CONFIGS / "smoke_cascade.py"}'

# What the project promises of each command.
OPTIONS = {
  'train': '--config --workdir',
  'distill': '--config --teacher --workdir --steps',
  'sample': '--config --workdir --num --seed --out --labels --batch_size --at '
  '--ema --batch_per_device --format --stages --sampler --steps --start_images '
  '--start_level --guide --guidance_weight',
  'upscale': 'IMAGE --workdir --out --held_out --label --level --seed --at '
  '--ema --batch_per_device --sampler --steps --start_level --guide '
  '--guidance_weight --scale --width --height --long_edge --megapixels '
  '--format --quality --subsampling --compression --strip_metadata '
  '--compare --wrap --back_projection --damage --detail --codec --crf',
  'evaluate': '--samples --reference --metrics --lowres --downsample '
  '--make_reference --num --seed --few --kid_size --weights --batch_size '
  '--lpips --lpips_weights --out --at --ema --batch_per_device '
  '--sampler --steps',
  'cas': '--config --workdir --samples --test --num --seed --batch_size --out '
  '--at --ema --batch_per_device --sampler --steps',
  'accuracy': '--workdir --samples --reference --num --seed --level '
  '--classifier_weights --batch_size --out --at --ema --batch_per_device '
  '--labels --class_names --sampler --steps',
  'sweep': '--samples --reference --try --metrics --out --num --seed --few '
  '--at --ema --batch_per_device --sampler --steps',
  'robustness': '--samples --out --num --degrade --groups --draws --metrics '
  '--level --seed --batch_size --lpips --lpips_weights --weights --few --title '
  '--sampler --steps',
  'compare': '--methods --workdir --out --config --low_res --size --num --seed '
  '--shown --extreme --draws --weights --lpips --paper --batch_size --at --ema '
  '--sampler --steps',
  'serve': '--workdir --samples --memory --minutes --at --ema --sampler '
  '--steps --batch_per_device --host --port --token --no_browser',
  'study': 'ACTION STUDY --methods --originals --lowres --task --trials '
  '--seconds --seed --title --question --information --host --port --token '
  '--no_browser --out --lists --answers --overwrite',
  'ema': 'WORKDIR --std --at --out',
  'import': 'FILE --from --out --name --image_size --lowres_size --num_heads '
  '--head_features --attention_order --schedule --timesteps '
  '--rescale_timesteps --norm_groups --dropout '
  '--config --workdir --synthesis --mapping --gaussian_fit',
  'export': '--workdir --out --to --dtype --note --at --ema --overwrite '
  '--program --sampler --steps --level --tile --batch_size --platforms '
  '--license --figures',
  'prepare': '--source --size --out --crop --filter --no_classes --labels '
  '--class_names --order',
  'describe': '--config --json',
  'plan': '--config --topology --step --search --quick --deadline '
  '--price --json',
  'report': '--run --samples --upscaled --enlarged --row --out --title',
}


@pytest.fixture
def refused(capfd):
  """-> refused(*words): runs `cdm WORDS`, which must be refused; its line."""

  def run(*words, code=2):
    prefix = 'cdm: data error: ' if code == 4 else 'cdm: error: '
    capfd.readouterr()
    assert smoke_runs.cdm(*words) == code
    err = capfd.readouterr().err
    assert 'Traceback' not in err
    lines = [s for s in err.splitlines() if s.startswith(prefix)]
    assert len(lines) == 1 and err.endswith(f'{lines[0]}\n'), err
    return lines[0].removeprefix(prefix)

  return run


# Help.


@pytest.mark.parametrize('command', main.COMMANDS)
def test_help_names_every_option_and_gives_an_example(command, capsys):
  with pytest.raises(SystemExit) as end:
    smoke_runs.cdm(command, '--help')
  assert end.value.code == 0
  text = capsys.readouterr().out
  listed = re.findall(r'^  (--\w+|[A-Z]+)\b', text, re.MULTILINE)
  assert set(OPTIONS[command].split()) <= set(listed)
  assert re.search(rf'^  cdm {command} ', text, re.MULTILINE)
  assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize('words', [(), ('--help',)])
def test_the_door_lists_every_command(words, capsys):
  with pytest.raises(SystemExit) as end:
    smoke_runs.cdm(*words)
  assert end.value.code == 0
  text = capsys.readouterr().out
  for command, summary in main.COMMANDS.items():
    assert re.search(rf'^    {command} +{re.escape(summary)}$', text, re.M)


def test_examples_of_help_are_accepted_by_the_parser(capsys):
  """Every `cdm ...` line of every help text parses, overrides included."""
  seen = 0
  for command in [None, *main.COMMANDS]:
    with pytest.raises(SystemExit):
      main.main([command, '--help'] if command else ['--help'])
    text = capsys.readouterr().out.replace('\\\n', ' ')
    for line in re.findall(r'^  cdm (.+)$', text, re.MULTILINE):
      words = line.split()
      for prefix in main.OVERRIDES:
        words, _ = main.split_overrides(words, prefix)
      if '...' in words:
        continue
      assert main.parse(words).command == words[0]
      seen += 1
  assert seen >= 15


def test_a_value_may_hold_an_equals_sign():
  assert main.split_overrides(
    ['a', '--config.b.c=d=e', '--config.f', 'g=h']
  ) == (
    ['a'],
    [('b.c', 'd=e'), ('f', 'g=h')],
  )


# Misspelt.


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['trian', SMOKE], r"no command 'trian'\. Did you mean 'train'\?"),
    (
      ['train', SMOKE, '--workdir=x', '--wrkdir=y'],
      r"cdm train does not take '--wrkdir=y'\. Did you mean --workdir\?",
    ),
    (  # although --workdir is missing then
      ['train', SMOKE, '--wrkdir=y'],
      r"does not take '--wrkdir=y'\. Did you mean --workdir\?",
    ),
    (['train', SMOKE], r'required: --workdir'),
    (
      ['sample', CASCADE, '--workdir=x', '--lables', '3'],
      r"does not take '--lables'\. Did you mean --labels\?",
    ),
    (['sample', CASCADE, '--workdir=x', '--num=x'], r"invalid int value: 'x'"),
    (
      ['train', SMOKE, '--workdir=x', '--config.train.batch_sise=3'],
      r'Did you mean config\.train\.batch_size\?',
    ),
    (
      ['train', SMOKE, '--workdir=x', '--config.trian.batch_size', '3'],
      r'Did you mean config\.train\.batch_size\?',
    ),
    (
      ['train', SMOKE, '--workdir=x', '--config.train.batch_size'],
      r'--config\.train\.batch_size needs a value',
    ),
    (
      ['train', SMOKE, '--workdir=x', '--lr=3'],
      r"not take '--lr=3'\. Did you mean --config\.optimizer\.learning_rate=V",
    ),
    (
      ['train', SMOKE, '--output_dir=x'],
      r"not take '--output_dir=x'\. Did you mean --workdir=VALUE\?",
    ),
    (
      ['describe', CASCADE, '--config.stages.sr.config=cdm_imagenet64to128'],
      r"^config\.stages: Stage 'base' makes 8-px .* takes 64-px",
    ),
    (
      ['plan', CASCADE, '--topology=cpu:1']
      + ['--config.stages.sr.config=cdm_imagenet64to128'],
      r"^config\.stages: Stage 'base' makes 8-px .* takes 64-px",
    ),
    (
      ['report', '--run=x', '--out=y', '--config.seed=3'],
      r'`cdm report` takes no config overrides',
    ),
    (
      ['describe', f'--config={smoke_runs.CONFIGS / "smok.py"}'],
      r'there is no such file\. Did you mean .*/smoke\.py\?',
    ),
  ],
  ids=lambda v: '' if isinstance(v, list) else None,
)
def test_a_misspelt_word_is_answered_with_the_right_one(
  words, message, refused
):
  assert re.search(message, refused(*words))


# Bad input of each command. {tmp} is an empty folder of the test.


@pytest.mark.parametrize(
  ('config', 'override', 'message'),
  [
    (CASCADE, '', r"'smoke_cascade' is a cascade, .*configs/smoke_sr\.py"),
    (SMOKE, 'train.batch_size=12', r'Global batch 12 does not divide over 8'),
    (SMOKE, 'train.accumulation=3', r'8 devices times 3 accumulated'),
    (SMOKE, 'mesh.data=3', r'mesh is data=3.* there are 8 devices'),
    (
      SMOKE,
      'model.num_classes=2',
      r'num_classes is 2, but the data has 4 classes, labels 0',
    ),
    (SMOKE, 'pipeline.image_size=9', r'9x9 pixels; .* must be multiples of 2'),
    (SMOKE, 'pipeline.crop=none', r'expects 8x8 pixels, but an image has 16x'),
    (
      SMOKE,
      'pipeline.min_side=99',
      r'min_side is 99, and 1000 records in a row are',
    ),
    (SMOKE, 'sampler.eta=9.0', r'eta is 9\.0; on this grid'),
    (SMOKE, 'schedule.kind=cosin', r"kind is 'cosin'; known are \['cosine'"),
    (SMOKE_SR, 'lowres.size=5', r'size is 5, which does not divide .* = 16'),
    (SMOKE_SR, 'lowres.size=32', r'size is 32, which does not divide'),
    (SMOKE_SR, 'model.lowres_level=False', r'lowres_level is False, but'),
    (
      SMOKE,
      'method.residual_scale=0.1',
      r'no low-res input to take a residual',
    ),
  ],
  ids=lambda v: v.partition('=')[0] if '.' in v and '/' not in v else '',
)
def test_a_config_that_cannot_be_trained_is_refused(
  config, override, message, refused, tmp_path
):
  words = [f'--config.{override}'] if override else []
  if 'crop' in override or 'min_side' in override:  # found when data are read
    words = [f'--config.{k}={v}' for k, v in smoke_runs.SMALL.items()] + words
  with smoke_runs.on(1) if len(words) > 1 else contextlib.nullcontext():
    line = refused('train', config, f'--workdir={tmp_path}', *words)
  assert re.search(message, line)
  assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('nowhere', r"nowhere' is not a folder of images"),
    ('empty', r"empty' has no images: no file below it ends in one of"),
    (None, r"config\.train_data lacks \['path'\]; Folder needs them"),
  ],
)
def test_missing_and_empty_data_are_refused(path, message, refused, tmp_path):
  (tmp_path / 'empty').mkdir()
  words = ['--config.train_data.kind=folder']
  if path:
    words.append(f'--config.train_data.path={tmp_path / path}')
  line = refused('train', SMOKE, f'--workdir={tmp_path / "run"}', *words)
  assert re.search(message, line)
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (
      ('kind=folder', 'path={tmp}/flat'),
      r'config\.eval_data \(folder\) has no classes: .*eval_data\.labels=FILE',
    ),
    (
      ('kind=folder', 'path={tmp}/flat', 'labels={tmp}/labels.txt'),
      r"no class in common, class 0 is 'ape' here and 'grating 0' there",
    ),
    (('num_classes=3',), r"1 class is missing, first 'grating 3', class 3 in"),
    (('num_classes=5',), r"1 class is not in training, first 'grating 4'"),
  ],
  ids=['flat', 'labelled', 'fewer', 'more'],
)
def test_held_out_data_of_other_classes_are_refused_before_training(
  words, message, refused, tmp_path
):
  (tmp_path / 'flat').mkdir()
  Image.new('RGB', (16, 16)).save(tmp_path / 'flat' / '0.png')
  (tmp_path / 'labels.txt').write_text('0 ape\n', encoding='utf-8')
  given = [f'--config.eval_data.{word.format(tmp=tmp_path)}' for word in words]
  run = tmp_path / 'run'
  with smoke_runs.on(1):
    line = refused('train', SMOKE, f'--workdir={run}', *given)
  assert re.search(message, line)
  assert not run.exists()


@pytest.mark.parametrize(
  'words',
  [
    ('train', SMOKE, '--workdir={file}'),
    ('sample', CASCADE, '--workdir={trained}', '--num=1', '--out={file}'),
    ('upscale', '--workdir={trained}/sr', '--held_out=1', '--out={file}/x'),
    ('prepare', '--source={images}', '--size=4', '--out={file}'),
    ('report', '--run={trained}/base', '--out={file}'),
  ],
  ids=lambda words: words[0],
)
def test_a_file_in_the_place_of_a_folder_is_refused(words, refused, tmp_path):
  file = tmp_path / 'taken'
  file.write_text('mine', encoding='utf-8')
  images = tmp_path / 'images'
  images.mkdir()
  Image.new('RGB', (4, 4)).save(images / '0.png')
  names = {'file': file, 'images': images, 'trained': smoke_runs.trained()}
  line = refused(*(word.format(**names) for word in words))
  assert re.search(r'taken.*(File exists|Not a directory)', line)
  assert file.read_text(encoding='utf-8') == 'mine'


@pytest.mark.parametrize(
  'words',
  [
    ('upscale', '--workdir={sr}', '--held_out=1', '--out={out}'),
    ('evaluate', '--samples={sr}@eval', '--metrics=psnr'),
    ('robustness', '--samples={sr}@eval', '--num=1', '--out={out}'),
    (
      *('compare', '--methods=sr={sr}', '--num=1', '--out={out}'),
      f'--config={smoke_runs.CONFIGS / "smoke_sr.py"}',
    ),
  ],
  ids=lambda words: words[0],
)
def test_a_stage_is_not_used_on_other_classes(words, refused, tmp_path):
  """Image n would be drawn as one of another class."""
  names = {'sr': smoke_runs.trained() / 'sr', 'out': tmp_path / 'out'}
  line = refused(
    *(word.format(**names) for word in words),
    '--config.eval_data.num_classes=3',
  )
  assert re.search("eval_data .*missing, first 'grating 3', class 3 in", line)
  assert not (tmp_path / 'out').exists()


def test_a_checkpoint_of_another_model_is_refused_and_left_alone(
  refused, tmp_path
):
  workdir = tmp_path / 'base'
  shutil.copytree(smoke_runs.trained() / 'base', workdir)
  before = smoke_runs.snapshot(workdir)
  line = refused(
    'train', SMOKE, f'--workdir={workdir}',
    *(f'--config.{k}={v}' for k, v in smoke_runs.SMALL.items()),
    '--config.model.features=12', '--config.train_data.num_classes=3',
    '--config.train_data.allow_missing_classes=True',
  )  # fmt: skip
  assert re.search(
    r'First difference: params/conv_in/bias is \[8\] in the checkpoint and '
    r'\[12\] here',
    line,
  )
  after = smoke_runs.snapshot(workdir)
  assert after == before


@pytest.mark.parametrize(
  ('labels', 'message'),
  [
    ('4', r"--labels=4: '4' is not a class; give an index from 0 to 3"),
    ('0,-1', r"--labels=0,-1: '-1' is not a class"),
    ('0,cat', r"--labels=0,cat: 'cat' is not a class"),
  ],
)
def test_labels_out_of_range_are_refused(labels, message, refused, tmp_path):
  line = refused(
    'sample', CASCADE, f'--workdir={smoke_runs.trained()}', f'--out={tmp_path}',
    f'--labels={labels}',
  )  # fmt: skip
  assert re.search(message, line)
  assert not any(tmp_path.iterdir())


def test_stages_that_do_not_fit_are_named(refused, tmp_path):
  """A second 8 -> 16 after the first: 16-px images into an 8-px input."""
  text = (smoke_runs.CONFIGS / 'smoke_cascade.py').read_text(encoding='utf-8')
  stage = text[
    text.rindex('    dict(\n      name=') : text.index('  )\n\n  c.paper')
  ]
  third = stage.replace("name='sr'", "name='sr2'")
  (tmp_path / 'three.py').write_text(
    text.replace(stage, stage + third), encoding='utf-8'
  )
  for name, trained in (('base', 'base'), ('sr', 'sr'), ('sr2', 'sr')):
    (tmp_path / name).symlink_to(smoke_runs.trained() / trained)
  given = [f'--config={tmp_path / "three.py"}', f'--workdir={tmp_path}']
  assert "'sr' makes 16-px images but stage 'sr2' takes 8-px input" in refused(
    'sample', *given
  )
  line = refused('sample', *given, '--config.stages.sr.level=0.9')
  assert 'was trained on levels up to 0.2' in line


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['sample', CASCADE, '--workdir={tmp}'], r'no checkpoint in .*/base;'),
    (
      ['sample', CASCADE, '--workdir={trained}', '--out={tmp}/out', '--num=0'],
      r'--num=0: it must be at least 1',
    ),
    (
      ['sample', CASCADE, '--workdir={trained}', '--batch_per_device=0'],
      r'--batch_per_device=0: it must be at least 1',
    ),
    (
      [
        *('upscale', '--workdir={trained}/sr', '--held_out=1', '--out={tmp}/o'),
        *('--batch_per_device=2', '--batch_size=8'),
      ],
      r'--batch_size=8 --batch_per_device=2: .* give one of the two',
    ),
    (
      ['cas', SMOKE, '--workdir={tmp}/w', '--samples={tmp}', '--at=best'],
      r'--at=best is for images that are drawn now, but none are',
    ),
    (
      [
        *('evaluate', '--samples={tmp}', '--reference={tmp}'),
        '--batch_per_device=4',
      ],
      r'--batch_per_device=4 is for images that are drawn now',
    ),
    (
      [
        *('evaluate', '--samples={tmp}', '--reference={trained}/sr@eval'),
        *('--metrics=fid', '--at=2'),
      ],
      r'--at=2 is the checkpoint of --samples, which are not drawn now',
    ),
    (
      [
        'sample',
        CASCADE,
        '--workdir={trained}',
        '--out={tmp}/out',
        '--seed=-1',
      ],
      r'--seed=-1: seeds are 0 to',
    ),
    (
      ['sample', CASCADE, '--workdir={trained}', '--out={tmp}/out']
      + ['--config.stages.base.level=0.1'],
      r'stages\.base\.level is 0\.1, but the first stage',
    ),
    (
      ['sample', SMOKE, '--workdir={sr}', '--out={tmp}/out'],
      r"sr holds 'smoke_sr', but 'smoke' is asked for",
    ),
    (
      ['upscale', '--workdir={sr}', '--held_out=1', '--seed=-1'],
      r'--seed=-1: seeds are 0 to',
    ),
    (
      ['upscale', '--workdir={sr}', '{tmp}/ok.png', '--label=4'],
      r"--label=4: '4' is not a class; give an index from 0 to 3",
    ),
    (['upscale', '--workdir={tmp}', '--held_out=1'], r'There is no checkpoint'),
    (['upscale', '--workdir={base}', '--held_out=1'], r"'smoke', a base model"),
    (['upscale', '--workdir={sr}'], r'image files or --held_out=N'),
    (['upscale', '--workdir={sr}', '--held_out=99'], r'the data has 64; ask'),
    (['upscale', '--workdir={sr}', '--held_out=-1'], r'must be at least 1'),
    (
      ['upscale', '--workdir={sr}', '--held_out=1', '--label=0'],
      r'held-out images have labels of their own',
    ),
    (
      ['upscale', '--workdir={sr}', '--held_out=1', '--level=0.5'],
      r'was trained on levels up to 0\.2',
    ),
    (
      [
        'upscale',
        f'--workdir=bicubic:{smoke_runs.CONFIGS}/smoke_sr.py',
        '{tmp}/small.png',
      ],
      r'small\.png: The image is 20x7 pixels, smaller than the 8x8 input',
    ),
    (
      [
        'upscale',
        f'--workdir=bicubic:{smoke_runs.CONFIGS}/smoke_sr.py',
        '{tmp}/ok.png',
      ]
      + ['--scale=2'],
      r'--scale=2\.0: this method super-resolves tiles, and writes PNG files',
    ),
    (
      ['upscale', '--workdir={sr}', '--held_out=1', '--strip_metadata'],
      r'--strip_metadata: held-out images have a size of their own; leave it',
    ),
    (
      ['upscale', '--workdir={sr}', '{tmp}/ok.png', '--quality=0'],
      r'quality is 0; it must be 1 to 100',
    ),
    (
      ['upscale', '--workdir={sr}', '{tmp}/ok.png', '--width=9', '--scale=2'],
      r'--scale=2 and --width=9 both set the size of the result; give one',
    ),
    (
      ['upscale', '--workdir={sr}', '{tmp}/ok.png', '--back_projection=11'],
      r'--back_projection=11: give 0 to 10 rounds',
    ),
    (
      ['upscale', '--workdir={sr}', '{tmp}/ok.png', '--damage=jpeg=9'],
      r'--damage=jpeg=9: jpeg=9: networks learn jpeg from 50 to 100',
    ),
    (
      ['upscale', '--workdir={sr}', '{tmp}/ok.png', '--detail=1.5'],
      r'--detail=1.5: give a number from 0 to 1',
    ),
    (
      ['upscale', '--workdir={sr}', '{tmp}/ok.png', '--detail=0.5'],
      r'--detail=0.5: this stage draws no details over a mean',
    ),
    (
      ['upscale', '--workdir={sr}', '{tmp}/ok.png', '--damage=none'],
      r'--damage=none: this stage is not told what degraded a picture',
    ),
    (['upscale', '--workdir={sr}', '{tmp}/no.png'], r'there is no such file'),
    (
      ['upscale', '--workdir={sr}', '{tmp}/ok.png', '--label=dog'],
      r"--label=dog: 'dog' is not a class; .* or a name: grating 0",
    ),
    (
      ['evaluate', '--samples={tmp}/ok.png', '--reference={tmp}/small.png'],
      r'A sample has 8x8 pixels but its reference 20x7',
    ),
    (
      ['evaluate', '--samples={tmp}/four.npz', '--reference={tmp}/four.npz'],
      r'arr_0 of .*/four\.npz is uint8 \(2, 8, 8, 4\)',
    ),
    (['report', '--run={tmp}'], r'not the work directory of a training run'),
    (['report', '--run={base}', '--samples={tmp}'], r'holds no samples\.png'),
    (['report', '--run={base}', '--row={tmp}/no'], r'cannot be read .*No such'),
    (
      ['report', '--run={base}', '--enlarged={tmp}/a.png'],
      r'no comparison; gi',
    ),
    (
      ['prepare', '--source={tmp}/no', '--size=8'],
      r'is not a folder of images',
    ),
    (
      ['prepare', '--source=tfds:x', '--size=8'],
      r'names no split; write tfds:',
    ),
    (['prepare', '--source={tmp}', '--size=0'], r'image_size is 0'),
  ],
  ids=lambda v: v[0] if isinstance(v, list) else '',
)
def test_what_cannot_be_used_is_named(words, message, refused, tmp_path):
  Image.new('RGB', (20, 7)).save(tmp_path / 'small.png')
  Image.new('RGB', (8, 8)).save(tmp_path / 'ok.png')
  np.savez(tmp_path / 'four.npz', arr_0=np.zeros((2, 8, 8, 4), np.uint8))
  workdir = smoke_runs.trained()
  names = {'tmp': tmp_path, 'base': workdir / 'base', 'sr': workdir / 'sr'}
  names['trained'] = workdir
  words = [word.format(**names) for word in words]
  if words[0] in ('upscale', 'report', 'prepare'):
    words.append(f'--out={tmp_path / "out"}')
  assert re.search(message, refused(*words))
  assert not (tmp_path / 'out').exists()


def test_a_row_that_is_not_json_is_a_data_error(refused, tmp_path):
  (tmp_path / 'row.json').write_text('no row', encoding='utf-8')
  words = ['report', f'--run={smoke_runs.trained() / "base"}']
  words += [f'--row={tmp_path / "row.json"}', f'--out={tmp_path / "out"}']
  assert 'row.json cannot be read' in refused(*words, code=4)
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (
      ['upscale', '--workdir={sr}', '{tmp}/text.png', '--out={tmp}/out'],
      r'text\.png: it is not a JPEG, .* image\. Repair it, or leave it out\.$',
    ),
    (
      ['upscale', '--workdir={sr}', '{tmp}/cut.png', '--out={tmp}/out'],
      r'cut\.png: the PNG file is damaged or cut off\. Repair it',
    ),
    (
      ['evaluate', '--samples={tmp}/cut.png', '--reference={tmp}/cut.png'],
      r'cut\.png: the PNG file is damaged or cut off\. Write the image again',
    ),
  ],
  ids=lambda v: v[0] if isinstance(v, list) else '',
)
def test_a_damaged_picture_is_a_data_error(words, message, refused, tmp_path):
  (tmp_path / 'text.png').write_text('no picture', encoding='utf-8')
  Image.new('RGB', (8, 8)).save(tmp_path / 'cut.png')
  whole = (tmp_path / 'cut.png').read_bytes()
  (tmp_path / 'cut.png').write_bytes(whole[: len(whole) // 2])
  names = {'tmp': tmp_path, 'sr': smoke_runs.trained() / 'sr'}
  line = refused(*(word.format(**names) for word in words), code=4)
  assert re.search(message, line)
  assert not (tmp_path / 'out').exists()


def test_stages_of_other_classes_are_refused(refused, tmp_path):
  (tmp_path / 'base').symlink_to(smoke_runs.trained() / 'base')
  shutil.copytree(smoke_runs.trained() / 'sr', tmp_path / 'sr')
  names = [f'grating {n}' for n in (1, 0, 2, 3)]
  (tmp_path / 'sr' / 'classes.json').write_text(
    json.dumps(names), encoding='utf-8'
  )
  line = refused('sample', CASCADE, f'--workdir={tmp_path}')
  assert 'were trained on differently named classes' in line
  assert not (tmp_path / 'samples').exists()


# What a command hands on.


@pytest.mark.parametrize(
  ('name', 'size', 'low', 'residual'),
  [('base', 8, None, False), ('sr', 16, 8, True)],
)
def test_a_stage_is_restored_as_it_was_trained(name, size, low, residual):
  workdir = smoke_runs.trained() / name
  stage, saved, record = restore.restored_stage(
    restore.Checkpoint(workdir), name='x', level=0.1, truncated=True
  )
  assert (stage.name, stage.image_size, stage.residual) == ('x', size, residual)
  assert (stage.lowres and stage.lowres.size) == low
  assert (stage.level, stage.truncated) == (0.1, True)
  assert (stage.num_classes, stage.null_class) == (4, True)
  assert (saved.pipeline.image_size, record.checkpoint) == (size, 4)
  average = smoke_runs.state(workdir, 4)['ema_params/conv_in/bias']
  np.testing.assert_array_equal(stage.params['conv_in']['bias'], average)


@pytest.mark.parametrize(
  ('words', 'seed'),
  [([], 5), (['--seed=0'], 0), (['--seed=4294967295'], 2**32 - 1)],
)
def test_a_given_seed_counts_and_else_that_of_the_config(
  words, seed, monkeypatch, tmp_path
):
  seen = []
  monkeypatch.setattr(
    generate,
    'draw_to_folder',
    lambda *_, manifest, **__: seen.append(manifest['seed']),
  )
  assert smoke_runs.cdm(
    'sample', SMOKE, f'--workdir={smoke_runs.trained() / "base"}', *words,
    f'--out={tmp_path}', '--config.seed=5',
  ) == 0  # fmt: skip
  assert seen == [seed]


def test_an_exported_stage_draws_what_its_work_directory_draws(
  refused, tmp_path, monkeypatch, capfd
):
  """Alone in its folder; and as the model of the package."""
  packed, sr = tmp_path / 'sr.safetensors', smoke_runs.trained() / 'sr'
  card = tmp_path / 'card.md'
  card.write_text('What it cannot do.', encoding='utf-8')
  words = 'export', f'--workdir={sr}', f'--out={packed}', f'--note=card={card}'
  assert smoke_runs.cdm(*words) == 0
  assert re.search(r'sr.safetensors: step 4, .* sha256 \w{64}', told(capfd))
  assert 'exists; give another name, or --overwrite' in refused(*words)
  assert packed_stage.read(packed).notes['card'] == 'What it cannot do.'
  photo = tmp_path / 'photo.png'
  Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(photo)
  monkeypatch.setattr(shipped_model, 'FOLDER', tmp_path)
  monkeypatch.setattr(shipped_model, 'PHOTO', packed.name)
  drawn = []
  for i, words in enumerate([[f'--workdir={sr}'], [f'--workdir={packed}'], []]):
    out = tmp_path / f'{i}.png'
    label = '--label=grating 1' if i < 2 else '--label=1'
    assert smoke_runs.cdm(
      'upscale', *words, photo, f'--out={out}', label,
      '--steps=2',
    ) == 0  # fmt: skip
    drawn.append(np.asarray(Image.open(out)))
  np.testing.assert_array_equal(drawn[0], drawn[1])
  np.testing.assert_array_equal(drawn[0], drawn[2])
  packed.unlink()
  line = refused('upscale', photo, f'--out={tmp_path / "no.png"}')
  assert 'no model lies in this installation' in line


def told(capfd):
  return capfd.readouterr().out


@pytest.mark.parametrize(
  ('num_classes', 'null_class', 'text', 'expected'),
  [
    (3, True, None, None),
    (3, False, '2', 2),
    (3, False, 'cat', 1),
    (None, False, None, None),
    (None, False, '0', 'this stage takes no label'),
    (3, False, None, r'give --label=CLASS, one of 3 by name or index'),
    (3, True, '3', "'3' is not a class; .* 0 to 2 or a name: dog, cat, owl"),
    (3, True, '-1', "'-1' is not a class"),
  ],
)
def test_a_label_is_a_number_or_a_name(num_classes, null_class, text, expected):
  stage = types.SimpleNamespace(num_classes=num_classes, null_class=null_class)
  given = text, stage, ['dog', 'cat', 'owl']
  if isinstance(expected, str):
    with pytest.raises(ValueError, match=expected):
      upscale_command.parse_label(*given)
  else:
    assert upscale_command.parse_label(*given) == expected


@pytest.mark.parametrize(
  ('text', 'name', 'split'),
  [
    ('mnist:train', 'mnist', 'train'),
    ('mnist:3.0.1:train', 'mnist:3.0.1', 'train'),
    ('mnist:train[:9]', 'mnist', 'train[:9]'),
    ('mnist:3.0.1:train[2:9]+test[:5%]', 'mnist:3.0.1', 'train[2:9]+test[:5%]'),
  ],
)
def test_a_data_set_may_name_its_version_and_a_slice(text, name, split):
  section = prepare_command.source_section(f'tfds:{text}', '/d')
  assert section == {
    'kind': 'tfds', 'name': name, 'split': split,
    'data_dir': '/d',
  }  # fmt: skip


def test_every_option_of_prepare_reaches_it(monkeypatch, tmp_path, capsys):
  seen = {}

  def record(source, **options):
    seen.update(options, images=len(source))
    return {'shards': [{'records': 2}, {'records': 1}], 'fingerprint': 'f'}

  monkeypatch.setattr(prepare, 'prepare', record)
  monkeypatch.chdir(tmp_path)  # The checkout may be read-only.
  Image.new('RGB', (4, 4)).save(tmp_path / '0.png')
  assert smoke_runs.cdm(
    'prepare', f'--source={tmp_path}', '--size=4', '--out=o', '--crop=none',
    '--filter=lanczos', '--workers=3', '--max_skip_fraction=0.5',
    '--allow_enlarging',
    '--payload=jpeg', '--quality=80', '--verify',
  ) == 0  # fmt: skip
  bar = seen.pop('progress')(total=3, initial=1)
  assert isinstance(bar, progress.Progress) and seen.pop('say') is print
  assert seen == {
    'images': 1, 'size': 4, 'out': 'o', 'crop': 'none', 'filter': 'lanczos',
    'worker_count': 3, 'max_skip_fraction': 0.5, 'payload': 'jpeg',
    'quality': 80, 'verify': True,
  }  # fmt: skip
  assert '3 images of 4x4 pixels in 2 shards' in capsys.readouterr().out


def test_prepare_enlarges_a_data_set_only_if_it_is_told_to(tmp_path, capsys):
  pytest.importorskip('array_record')
  source, out = tmp_path / 'source', tmp_path / 'out'
  source.mkdir()
  for name in 'abc':
    Image.new('RGB', (9, 7)).save(source / f'{name}.png')
  words = 'prepare', f'--source={source}', f'--out={out}', '--size=8'
  assert smoke_runs.cdm(*words) == 2
  said = capsys.readouterr().err
  assert 'all 3 that were looked at' in said and '7 pixels' in said
  assert 'or give --allow_enlarging to enlarge them' in said
  assert not out.exists()
  assert smoke_runs.cdm(*words, '--allow_enlarging') == 0
  assert smoke_runs.cdm(*words) == 0  # It is there already.


def test_prepare_counts_what_it_kept(tmp_path, capsys):
  """And can ignore folders, of which it said that a config can."""
  pytest.importorskip('array_record')
  source = tmp_path / 'source'
  for name in ('cat/0.png', 'dog/1.png', '2.png'):
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (4, 4)).save(source / name)
  (source / 'cat' / '3.png').write_bytes(b'cut off')
  os.mkfifo(source / 'cat' / 'pipe.png')
  words = 'prepare', f'--source={source}', '--size=4', '--max_skip_fraction=1'
  assert smoke_runs.cdm(*words, f'--out={tmp_path / "a"}') == 2
  assert '--no_classes of `cdm prepare`' in capsys.readouterr().err
  out = tmp_path / 'b'
  assert smoke_runs.cdm(*words, '--no_classes', f'--out={out}') == 0
  said = capsys.readouterr().out
  assert f'{out}: 3 images of 4x4 pixels in 1 shards' in said
  assert '1 of 4 images could not be used and were skipped' in said
  assert array_record.ArrayRecords(out).num_classes == 0


# The exit code.


@pytest.mark.parametrize('code', [0, 75, 130])
def test_the_exit_code_of_training_is_passed_on(code, monkeypatch, tmp_path):
  monkeypatch.setattr(trainer, 'train', lambda *_, **__: code)
  assert smoke_runs.cdm('train', SMOKE, f'--workdir={tmp_path}') == code


def test_a_loss_that_is_not_finite_has_a_code_of_its_own(
  monkeypatch, tmp_path, capsys
):
  def diverge(*_, **__):
    raise running_metrics.Diverged('The loss is nan.')

  monkeypatch.setattr(trainer, 'train', diverge)
  assert smoke_runs.cdm('train', SMOKE, f'--workdir={tmp_path}') == 3
  assert capsys.readouterr().err == 'cdm: not finite: The loss is nan.\n'


# Faults of the program are no bad input.


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch, tmp_path):
  monkeypatch.setattr(
    'cdm.training.run_summary.print_run_summary', lambda *_: int('no number')
  )
  with pytest.raises(ValueError, match='invalid literal'):
    smoke_runs.cdm('train', SMOKE, f'--workdir={tmp_path}')


def test_debug_shows_the_whole_error(tmp_path, capfd):
  words = ('train', CASCADE, f'--workdir={tmp_path}', '--debug')
  assert smoke_runs.cdm(*words) == 2
  err = capfd.readouterr().err
  assert 'Traceback' in err and re.search('cdm: error: .* is a cascade', err)


DESCRIBE = ['describe', f'--config={smoke_runs.CONFIGS / "cdm_cascade64.py"}']


@pytest.mark.parametrize(
  ('words', 'buffered'),
  [
    (DESCRIBE, True),
    (DESCRIBE, False),
    (['plan', '--help'], True),
    (['--help'], True),
  ],
)
def test_who_reads_only_the_beginning_is_told_of_no_error(words, buffered):
  """As in `cdm describe ... | head -1`."""
  run = subprocess.Popen(
    [sys.executable, '-m', 'cdm', *words],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    cwd=smoke_runs.CONFIGS.parent,
    env={**os.environ, 'PYTHONUNBUFFERED': '' if buffered else '1'},
  )
  run.stdout.close()
  with run.stderr:
    assert run.stderr.read() == b''
  assert run.wait() == main.READER_GONE


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
def test_a_full_disk_behind_stdout_is_an_error_of_one_line():
  with open('/dev/full', 'w', encoding='utf-8') as full:
    done = subprocess.run(
      [sys.executable, '-m', 'cdm', 'describe', SMOKE],
      stdout=full,
      stderr=subprocess.PIPE,
      cwd=smoke_runs.CONFIGS.parent,
      env={**os.environ, 'PYTHONUNBUFFERED': '', 'NO_COLOR': '1'},
      text=True,
      encoding='utf-8',
    )
  assert done.returncode == 2
  (line,) = done.stderr.splitlines()
  assert 'error: The output cannot be written: No space left on' in line


class PollOfMacOS:
  """Watches nothing for which no event is asked; tells of a hang-up."""

  def __init__(self):
    self.real, self.asked = REAL_POLL(), {}

  def register(self, file, events):
    self.asked[file] = events
    self.real.register(file, events)

  def poll(self, timeout):
    translated = {select.POLLERR: select.POLLHUP}
    return [
      (file, translated.get(events & ~select.POLLOUT, events))
      for file, events in self.real.poll(timeout)
      if self.asked[file]
    ]


REAL_POLL = getattr(select, 'poll', None)


@pytest.mark.parametrize('system', ['here', 'macOS', 'Windows'])
@pytest.mark.parametrize('is_read', [True, False])
def test_a_pipe_that_nobody_reads_is_noticed_on_every_system(
  system, is_read, monkeypatch
):
  if system == 'macOS' and REAL_POLL:
    monkeypatch.setattr(select, 'poll', PollOfMacOS)
  if system == 'Windows':
    monkeypatch.delattr(select, 'poll', raising=False)
  reading, writing = os.pipe()
  with (
    open(writing, 'w', encoding='utf-8') as stdout,
    open(reading, encoding='utf-8') as reader,
  ):
    monkeypatch.setattr(sys, 'stdout', stdout)
    if not is_read:
      reader.close()
    print('a line')  # It lies in the buffer.
    assert main.stdout_has_reader() == is_read
    stdout.flush()  # This goes to the null device if nobody reads.


class StrictStream(io.TextIOWrapper):
  """A stream of ASCII that refuses what it cannot encode."""

  def __init__(self):
    super().__init__(io.BytesIO(), encoding='ascii', errors='strict')

  def text(self):
    self.flush()
    return self.buffer.getvalue().decode('ascii')


def test_a_name_of_any_bytes_does_not_end_a_command(monkeypatch, tmp_path):
  """It is escaped in what a command prints and in its error."""
  out, err = StrictStream(), StrictStream()
  monkeypatch.setattr(sys, 'stdout', out)
  monkeypatch.setattr(sys, 'stderr', err)
  name = os.fsdecode(b'caf\xe9\x1b[2J')

  def run(args):
    print(name, 'é')
    raise exit_codes.DataError(f'{name}: é')

  monkeypatch.setattr(trainer, 'train', lambda *_, **__: run(None))
  assert smoke_runs.cdm('train', SMOKE, f'--workdir={tmp_path}') == 4
  assert 'caf\\udce9' in out.text() and '\\xe9' in out.text()
  assert 'data error: caf\\xe9\\x1b[2J: \\xe9\n' in err.text()


def test_an_option_without_its_command_is_answered(refused):
  line = refused('--debug')
  assert "'--debug' belongs to a command: write cdm COMMAND --debug" in line
