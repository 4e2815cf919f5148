"""Every experiment in configs/: complete, documented, and it builds.

Nothing is allocated: networks of hundreds of millions of parameters are built
as shapes.
"""

import ast
import functools
import inspect
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from cdm.config import datasets, placement, sampler_section
from cdm.config import stage as build
from cdm.config.loader import from_json, load, to_json
from cdm.data import pipeline
from cdm.models import attention_products, flops, unet, unet_plan
from cdm.sampling import cascade
from cdm.training import ema_section, run_config

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATHS = {path.stem: path for path in sorted((ROOT / 'configs').glob('*.py'))}
# Of every stage; a kind of method adds its own. `cdm cas` tests a classifier.
SECTIONS = {
  'name',
  'seed',
  'train_data',
  'eval_data',
  'pipeline',
  'model',
  'method',
  'train',
  'eval',
  'mesh',
  'paper',
}
# [SR3] tab. A.1 and Improved DDPM's README: their networks, within rounding
# and the choice of details they leave open.
TOLERANCE = 0.04

# More pixels than 16 x 16 attend to each other, as in the network of [ADM].
WIDE_ATTENTION = {'edm_imagenet64': 32 * 32}

# What the papers print, typed from them; not from the configs.
PUBLISHED = {
  'cdm_imagenet32': {'fid_train': 1.11, 'fid_val': 1.99},
  'cdm_cascade64': {'fid_train': 1.48, 'fid_val': 2.48},
  'cdm_cascade128': {'fid_train': 3.52, 'fid_val': 3.76, 'cas_top1': 59.84},
  'cdm_cascade256': {'fid_train': 4.88, 'fid_val': 4.63, 'cas_top1': 63.02},
  'sr3_faces16to128': {
    'psnr': 23.04,
    'ssim': 0.65,
    'consistency': 2.68e-5,
    'parameters': 550_000_000,
  },
  'sr3_faces16to128_regression': {
    'psnr': 23.96,
    'ssim': 0.69,
    'consistency': 2.71e-5,
  },
  'fsrgan_faces16to128': {'psnr': 23.01, 'ssim': 0.62, 'consistency': 33.8e-5},
  'sr3_imagenet64to256_regression': {
    'fid': 15.2,
    'inception_score': 121.1,
    'psnr': 27.9,
    'ssim': 0.801,
  },
  'pulse_faces1024': {'psnr': 16.88, 'ssim': 0.44, 'consistency': 161.1e-5},
  'sr3_faces64to256': {'parameters': 625_000_000},
  'sr3_faces64to512': {'parameters': 625_000_000},
  'sr3_faces256to1024': {'parameters': 150_000_000},
  'sr3_imagenet64to256': {
    'fid': 5.2,
    'inception_score': 180.1,
    'psnr': 26.4,
    'ssim': 0.762,
    'parameters': 625_000_000,
  },
  'sr3_imagenet_cascade256': {'fid': 11.3},
  # UNVERIFIED, at temperature 1.1.
  'prsr_celeba8to32': {'psnr': 29.08, 'ssim': 0.84},
  'prsr_bedrooms8to32': {'psnr': 28.92, 'ssim': 0.59},
  'prsr_celeba8to32_regression': {'psnr': 29.16, 'ssim': 0.9},
  'prsr_bedrooms8to32_regression': {'psnr': 28.87, 'ssim': 0.74},
  'cas_imagenet128': {'cas_top1': 68.82, 'cas_top5': 88.79},
  'cas_imagenet256': {'cas_top1': 73.09, 'cas_top5': 91.47},
}


@functools.cache
def config_of(name):
  return load(PATHS[name])


@functools.cache
def stage_of(name):
  return build.stage(config_of(name))


@functools.cache
def params_of(name):
  return placement.abstract_params(stage_of(name).method)


def docstring(name):
  return ast.get_docstring(ast.parse(PATHS[name].read_text(encoding='utf-8')))


CASCADES = [name for name in PATHS if 'stages' in config_of(name)]
STAGES = [name for name in PATHS if name not in CASCADES]
CLASSIFIERS = [name for name in STAGES if build.is_classifier(config_of(name))]
SAMPLED = [name for name in STAGES if 'sampler' in config_of(name)]

every_config = pytest.mark.parametrize('name', PATHS)
every_stage = pytest.mark.parametrize('name', STAGES)
every_sampled = pytest.mark.parametrize('name', SAMPLED)
every_classifier = pytest.mark.parametrize('name', CLASSIFIERS)
every_cascade = pytest.mark.parametrize('name', CASCADES)


@every_config
def test_a_config_is_a_literal_and_nothing_else(name):
  """One docstring, one import, one function: values only."""
  head, *body = ast.parse(PATHS[name].read_text(encoding='utf-8')).body
  assert isinstance(head, ast.Expr)
  imported, function = body
  assert ast.unparse(imported) == 'from ml_collections import ConfigDict'
  assert function.name == 'get_config' and not function.args.args
  called = {
    ast.unparse(node.func)
    for node in ast.walk(function)
    if isinstance(node, ast.Call)
  }
  assert called <= {'ConfigDict', 'dict'}
  loops = (ast.For, ast.If, ast.IfExp, ast.comprehension, ast.Lambda)
  assert not [n for n in ast.walk(function) if isinstance(n, loops)]
  assert config_of(name).name == name


@every_config
def test_a_config_states_each_section_once(name):
  """A second statement would silently replace the first."""
  tree = ast.parse(PATHS[name].read_text(encoding='utf-8'))
  stated = [
    ast.unparse(target)
    for node in ast.walk(tree)
    if isinstance(node, ast.Assign)
    for target in node.targets
  ]
  assert len(stated) == len(set(stated))


@every_config
def test_a_config_says_how_to_run_it_and_what_to_expect(name):
  text = docstring(name)
  command = 'sample' if name in CASCADES else 'train'
  command = 'cas' if name in CLASSIFIERS else command
  assert re.search(rf'cdm {command} --config=configs/{name}.py\s', text)
  for head in ('Hardware: ', 'Parameters: ', 'Paper', 'Ours: '):
    assert re.search(rf'^{head}', text, re.MULTILINE), head


@every_stage
def test_a_stage_is_complete(name):
  config = config_of(name)
  own = build.METHODS[config.method.kind].sections
  absent = {'eval'} if name in CLASSIFIERS else set()
  if not build.METHODS[config.method.kind].has_network:
    absent.add('model')
  assert set(config) == (SECTIONS - absent) | {*own}


@every_stage
def test_a_stage_builds_with_the_parameters_that_its_docstring_states(name):
  # As `cdm describe` counts them.
  built = flops.count_parameters(stage_of(name).trace()[0])
  stated = re.search(r'^Parameters: ([\d,]+)', docstring(name), re.MULTILINE)
  assert int(stated[1].replace(',', '')) == built
  paper = config_of(name).paper.get('parameters', built)
  assert abs(built / paper - 1) < TOLERANCE


@every_stage
def test_a_stage_gives_one_loss_per_example(name):
  built, size = stage_of(name), config_of(name).pipeline.image_size
  if built.method.loss is None:
    pytest.skip('it is fitted without gradients')
  key = jax.eval_shape(lambda: jax.random.key(0))
  batch = {
    'image': jax.ShapeDtypeStruct((2, size, size, 3), np.uint8),
    'label': jax.ShapeDtypeStruct((2,), np.int32),
  }
  init = built.method.init_frozen
  frozen = {} if init is None else {'frozen': jax.eval_shape(init, key)}
  loss, scalars = jax.eval_shape(
    functools.partial(built.method.loss, train=True),
    params_of(name),
    batch,
    key=key,
    **frozen,
  )
  assert (loss.shape, loss.dtype) == ((2,), np.float32)
  assert all(value.shape in ((), (2,)) for value in scalars.values())


@every_stage
def test_attention_is_over_so_few_pixels_that_it_is_plain(name):
  """`attention_products` says so, but of the one that it names."""
  net, size = stage_of(name).net, config_of(name).pipeline.image_size
  if isinstance(net, unet.UNet):
    assert net.attention == 'auto'
    levels = unet_plan.plan(net, (size, size))
    pixels = max(h * w for h, w in (x.size for x in levels if x.num_heads))
    if name in WIDE_ATTENTION:
      assert pixels == WIDE_ATTENTION[name]
      return
    assert pixels <= 16 * 16
    assert pixels**2 <= attention_products.PLAIN_WEIGHTS


@pytest.mark.parametrize(
  'name',  # With every kind of input; tracing the others takes long.
  [
    *('smoke_sr', 'photos8', 'cdm_imagenet32to64', 'sr3_faces16to128'),
    *('smoke_regression', 'smoke_raisr'),
  ],
)
def test_a_stage_draws_one_picture_per_key(name):
  built, size = stage_of(name), config_of(name).pipeline.image_size
  given = {}
  if built.net.num_classes is not None:
    given['label'] = jax.ShapeDtypeStruct((2,), np.int32)
  if built.lowres is not None:
    low = built.lowres.size
    given['lowres'] = jax.ShapeDtypeStruct((2, low, low, 3), np.float32)
    given['level'] = jax.ShapeDtypeStruct((2,), np.float32)
  keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
  images = jax.eval_shape(
    built.sample_in_training, params_of(name), keys=keys, **given
  )
  assert (images.shape, images.dtype) == ((2, size, size, 3), np.float32)


@every_sampled
def test_sampling_stays_within_the_noise_of_training(name):
  """A network is never asked about a noise level that it was not shown."""
  config, built = config_of(name), stage_of(name)
  grid = sampler_section.grid(built.schedule, config.sampler.grid)
  shown = built.schedule.logsnr
  assert np.all(np.diff(grid) > 0) and np.isposinf(grid[-1])
  assert shown[-1] - 1e-9 <= grid[0] and grid[-2] <= shown[0] + 1e-9
  # ... and starts where next to nothing is left of the image.
  assert grid[0] < -5.0


@every_stage
def test_the_other_sections_fit_what_they_are_given_to(name):
  """Data is not opened: the section is held against the signature."""
  config = config_of(name)
  run_config.read_train_section(config)
  if 'optimizer' in config:
    tx = run_config.make_optimizer(config.optimizer, config.train.num_steps)
    rate = float(tx.learning_rate(config.optimizer.warmup_steps))
    assert rate == pytest.approx(config.optimizer.learning_rate)
  assert placement.mesh(config.mesh).size == len(jax.devices())
  assert config.train.batch_size % config.train.accumulation == 0
  if 'ema' in config:
    least = 0.0 if name in CLASSIFIERS else 1e-9
    average = ema_section.read_ema_section(
      config.ema, batch_size=config.train.batch_size
    )
    assert least <= average.decay < 1.0
  for section in (config.train_data, config.eval_data):
    section = dict(section)
    source = datasets.SOURCES[section.pop('kind')]
    inspect.signature(source).bind(**section)
  inspect.signature(pipeline.PipelineOptions).bind_partial(**config.pipeline)


def test_the_training_section_has_the_same_keys_everywhere():
  first, *rest = (set(config_of(name).train) for name in STAGES)
  assert all(keys == first for keys in rest)


@every_classifier
def test_a_classifier_is_tested_on_seven_eighths_of_an_image(name):
  """The middle 224 of 256 pixels, as is usual on ImageNet."""
  config = config_of(name)
  assert config.method.size * 8 == config.pipeline.image_size * 7
  assert not config.pipeline.flip  # the method flips


@pytest.mark.parametrize('name', ['cas_imagenet128', 'cas_imagenet256'])
def test_a_classifier_of_imagenet_trains_for_ninety_epochs(name):
  """[Goyal et al. 2017] sec. 5.1, of 1,281,167 images."""
  config = config_of(name)
  epoch = 1_281_167 / config.train.batch_size
  assert config.train.num_steps == round(90 * epoch)
  given = config.optimizer
  assert given.decay_at == tuple(round(n * epoch) for n in (30, 60, 80))
  assert given.warmup_steps == round(5 * epoch)
  assert given.learning_rate == 0.1 * config.train.batch_size / 256
  # torchvision's network has as many parameters.
  assert flops.count_parameters(params_of(name)) == 25_557_032


@every_cascade
def test_grids_show_a_stage_at_the_level_of_its_cascade(name):
  for section in config_of(name).stages:
    assert config_of(section['config']).eval.level == section['level']


@every_cascade
def test_a_cascade_names_stages_that_exist_and_fit_each_other(name):
  config = config_of(name)
  stages = []
  for section in config.stages:
    stages.append(
      cascade.Stage.of(
        stage_of(section['config']),
        None,
        None,
        name=section['name'],
        level=section['level'],
        truncated=section['truncated'],
      )
    )
  cascade.check(stages)
  text = docstring(name)
  for section in config.stages:
    assert (
      f'cdm train --config=configs/{section["config"]}.py '
      f'--workdir=DIR/{section["name"]}'
    ) in ' '.join(text.replace('\\\n', ' ').split())
  total = sum(
    flops.count_parameters(params_of(s['config'])) for s in config.stages
  )
  assert f'Parameters: {total:,} over the stages' in text


def test_the_one_model_of_cifar_trains_for_as_many_flops_as_the_cascade():
  cost = {}
  for name in ('cifar_small_8', 'cifar_small_8to32', 'cifar_small_32'):
    given = config_of(name).train
    _, forward = stage_of(name).trace()
    cost[name] = forward * given.num_steps * given.batch_size
  one = cost.pop('cifar_small_32')
  assert one == pytest.approx(sum(cost.values()), rel=1e-3)


def test_a_key_has_one_type_in_all_configs():
  """So that an override that suits one experiment suits them all."""
  types = {}

  def walk(node, prefix):
    for key in node:
      value, name = node[key], f'{prefix}.{key}'
      if isinstance(value, ConfigDict):
        walk(value, name)
      elif value is not None:
        types.setdefault(name, {}).setdefault(type(value), []).append(key)

  for name in STAGES:
    walk(config_of(name), 'config')
  mixed = {name: kinds for name, kinds in types.items() if len(kinds) > 1}
  assert not mixed


@every_config
def test_a_config_survives_being_saved_beside_a_checkpoint(name):
  config = config_of(name)
  assert to_json(from_json(to_json(config), 'config.json')) == to_json(config)


@pytest.mark.parametrize('name', PUBLISHED)
def test_a_config_quotes_the_numbers_that_the_paper_prints(name):
  paper = config_of(name).paper
  assert {key: paper[key] for key in PUBLISHED[name]} == PUBLISHED[name]
  assert paper.source


def test_the_document_of_reproduction_lists_every_experiment():
  text = (ROOT / 'docs' / 'reproduction.md').read_text(encoding='utf-8')
  for name in PATHS:
    if name.startswith(('cdm_', 'sr3_', 'cas_imagenet', 'prsr_')):
      assert f'configs/{name}.py' in text or f'`{name}`' in text, name
    if name.startswith(('cdm_', 'sr3_')) and name in STAGES:
      parameters = flops.count_parameters(params_of(name))
      assert f'| `{name}` | {parameters:,} |' in text
  for numbers in PUBLISHED.values():
    for key, value in numbers.items():
      shown = {
        'consistency': f'{1e5 * value:.3g}',
        'parameters': f'{value / 1e6:.0f}M',
      }
      assert f'{shown.get(key, value)}' in text, (key, value)


def test_describe_prints_one_json_object_of_the_agreed_shape(capsys):
  from cdm.cli import main

  path = PATHS['cdm_cascade64']
  assert main.main(['describe', f'--config={path}', '--json']) == 0
  printed = json.loads(capsys.readouterr().out)
  assert set(printed) == {'config', 'stages'}
  base, sr = printed['stages']
  assert (base['name'], sr['name']) == ('base32', 'sr64')
  assert (base['lowres_size'], sr['lowres_size']) == (None, 32)
  assert (base['image_size'], sr['image_size']) == (32, 64)
  for stage, name in ((base, 'cdm_imagenet32'), (sr, 'cdm_imagenet32to64')):
    assert stage['parameters'] == flops.count_parameters(params_of(name))
    assert type(stage['flops_per_image']) is int
    assert stage['flops_per_image'] > 1e11
    assert stage['paper']['source'] == '[CDM] tab. 1'


def test_neighbouring_noise_levels_look_different_to_every_network():
  """A scalar in [0, 1] has to be scaled before it meets the sinusoids."""
  for name in SAMPLED:
    model = config_of(name).model
    if model.get('kind') in ('detail_network', 'edm2_unet'):
      continue  # the one scales by 1,000, and the other's sinusoids are fast
    if model.condition_on != 't':
      assert model.condition_scale is None or model.condition_scale >= 100.0


def test_the_guided_network_of_the_photographs_knows_no_label_too():
  method, model = (config_of('photos8to32')[k] for k in ('method', 'model'))
  assert method.label_dropout > 0 and model.null_class
  assert method.residual_scale is not None and model.patch_size == 1
  assert model.lowres_level and jnp.isfinite(method.residual_scale)
