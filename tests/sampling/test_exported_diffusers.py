"""A stage as a folder of diffusers: its own files come out as they went in."""

import json
import zipfile

import jax
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy
from support import random_params, smoke_runs
from support.oracles import ORACLES, oracle, rule_weights

from cdm.checkpointing import packed_stage
from cdm.config import exported_scheduler, imported_unet, loader
from cdm.models.pretrained import diffusers_export, diffusers_unet
from cdm.models.pretrained.published_unets import Asked
from cdm.models.unet import UNet
from cdm.sampling import exported_diffusers
from cdm.training import imported_unet as family

# Of both orders of the sinusoids, [cos, sin] is written.
SINES = 'time_embedding.linear_1.weight'


@pytest.mark.parametrize(
  'name', ['ddpm_cifar', 'folder', 'scale_shift_class', 'resnet_updown']
)
def test_the_files_of_diffusers_come_out_as_they_went_in(name):
  """Config and weights, by the library's own names and shapes."""
  tables, _ = oracle('diffusers_unet')
  given = tables['settings']['files'][name]['config_json']
  state = rule_weights(tables['weights'][name])
  fields, side = diffusers_unet.fields(given)
  net, flip = UNet(**fields), given['flip_sin_to_cos']
  params = diffusers_unet.to_cdm(
    dict(state), net, image_size=(side, side), flip_sin_to_cos=flip
  )
  found = diffusers_export.described(net, params, image_size=side)
  for key, value in found.items():
    if key == 'flip_sin_to_cos':
      assert value is True
    elif key == 'attn_norm_num_groups' and value is None:
      assert given[key] is None
    else:
      assert value == given[key], key
  assert set(given) - set(found) <= {
    '_diffusers_version', 'class_embed_type', 'mid_block_type',
    'num_train_timesteps', 'time_embedding_dim'
  }  # fmt: skip
  written = diffusers_export.state(params, net, image_size=side)
  if not flip:
    written[SINES] = np.roll(written[SINES], net.features // 2, axis=1)
  assert written.keys() == state.keys()
  for key, value in state.items():
    np.testing.assert_array_equal(written[key], value, err_msg=key)


def packed_ddpm(tmp_path):
  """-> (a packed stage of the library's own folder, that stage)."""
  with zipfile.ZipFile(ORACLES / 'diffusers_unet_folder.zip') as archive:
    archive.extractall(tmp_path)
  made = family.read(
    'diffusers', tmp_path / 'tiny-ddpm', name='tiny', asked=Asked()
  )
  path = tmp_path / 'tiny.safetensors'
  packed_stage.write(
    path, made.params, config=loader.to_json(made.config), step=3
  )
  return path, made


def test_a_folder_that_was_exported_is_imported_with_its_bits(tmp_path, capfd):
  path, made = packed_ddpm(tmp_path)
  out = tmp_path / 'out'
  words = ['export', '--to=diffusers', f'--workdir={path}', f'--out={out}']
  assert smoke_runs.cdm(*words) == 0
  told = capfd.readouterr().out
  assert 'step 3, UNet2DModel of 71,323 parameters' in told
  again = family.read('diffusers', out, name='tiny', asked=Asked())
  assert again.config == made.config
  jax.tree.map(np.testing.assert_array_equal, again.params, made.params)
  assert smoke_runs.cdm(*words) == 2
  assert 'exists; give another name, or' in capfd.readouterr().err
  assert smoke_runs.cdm(*words, '--dtype=float16', '--overwrite') == 0
  half = safetensors_numpy.load_file(out / exported_diffusers.WEIGHTS)
  assert {x.dtype for x in half.values()} == {np.dtype(np.float16)}


SMALL = dict(
  features=16,
  multipliers=(1, 2),
  num_blocks=1,
  attention_resolutions=(4,),
  norm_groups=4,
  resample='conv',
)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'skip_rescale': True}, 'skip_rescale is True, where sums of residual'),
    ({'patch_size': 2}, 'patch_size is 2, where'),
    ({'condition_on': 'logsnr'}, "condition_on is 'logsnr', where the noise"),
    ({'lowres_level': True}, 'lowres_level is True, where'),
    ({'condition_scale': 0.25}, 'condition_scale is 0.25; UNet2DModel embeds'),
    ({'resample': 'plain'}, "resample is 'plain'; UNet2DModel has 'conv'"),
    ({'num_blocks': (1, 2)}, r'num_blocks is \(1, 2\); UNet2DModel has one'),
    ({'embedding': 'additive', 'mid_norm': False}, 'mid_norm is False with'),
    ({'num_heads': 2, 'attention_resolutions': (8, 4)}, r'are \[8, 16\] chan'),
    ({'max_period': 5.0}, 'max_period is 5.0'),
    ({'norm_groups': 32}, 'groups is 32, but .* 16 channels in 4; UNet'),
  ],
)
def test_what_diffusers_cannot_express_is_refused_by_its_field(change, message):
  net = UNet(**SMALL | change)
  with pytest.raises(diffusers_export.Inexpressible, match=message):
    known = shapes(net) if 'norm_groups' in change else {}
    diffusers_export.described(net, known, image_size=8)


def shapes(net):
  """-> the shapes of the parameters of a network of images of 8 pixels."""
  x = np.zeros((1, 8, 8, 3), np.float32)
  label = None if net.num_classes is None else np.zeros(1, np.int32)
  lowres = {'lowres': x, 'lowres_level': x[:, 0, 0, 0]}
  more = lowres if net.lowres_level else {}
  return jax.eval_shape(
    lambda key: net.init(
      key, x, x[:, 0, 0, 0], label=label, train=False, **more
    ),
    jax.random.key(0),
  )['params']


def config(**changes):
  """-> the config of a small network, as an import makes it."""
  c = imported_unet.make(
    'small',
    image_size=8,
    network=SMALL,
    schedule={
      'kind': 'linear', 'num_steps': 9, 'beta_min': 0.1, 'beta_max': 0.2
    },
    sampler={'kind': 'ddim', 'eta': 0.0, 'grid': {'kind': 'full'}},
    objective={},
    lowres=None,
    paper={'source': 'none'},
  )  # fmt: skip
  loader.override_all(
    c, [(key.replace('__', '.'), str(value)) for key, value in changes.items()]
  )
  return c


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'schedule__kind': 'shifted_cosine'}, "schedule.kind is 'shifted_cosine'"),
    ({'method__residual_scale': 0.2}, 'residual_scale is 0.2: the network dr'),
    ({'method__prediction': 'edm'}, "prediction is 'edm'; a scheduler of"),
  ],
)
def test_what_no_scheduler_follows_is_refused_by_its_key(changes, message):
  with pytest.raises(ValueError, match=message):
    exported_scheduler.of_config(config(**changes))


def test_a_sampler_without_a_counterpart_is_said():
  found = exported_scheduler.of_config(config(sampler__kind='heun'))
  assert found.config['_class_name'] == 'DDPMScheduler'
  assert found.config['prediction_type'] == 'epsilon'
  assert "'heun' becomes the DDPM scheduler" in found.notes[0]


@pytest.mark.parametrize(
  'change',
  [
    {},
    {'resample': 'biggan', 'num_heads': 1, 'head_features': 8},
    {'embedding': 'additive', 'resample': 'conv_one_sided', 'norm_eps': 1e-6},
    {'num_classes': 3, 'null_class': True, 'learned_variance': True},
    {'mid_norm': False, 'multipliers': (1, 1, 2)},
  ],
)
def test_diffusers_computes_the_same(tmp_path, change):
  """Where the library is installed."""
  diffusers = pytest.importorskip('diffusers', reason='it needs PyTorch')
  import torch

  net = UNet(**SMALL | change)
  zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes(net))
  params = random_params.moved(zeros, by=0.2)
  made = exported_diffusers.Exported(
    diffusers_export.described(net, params, image_size=8),
    exported_scheduler.of_config(config()).config,
    diffusers_export.state(params, net, image_size=8),
    (),
  )
  exported_diffusers.write(tmp_path, made, 'float32')
  model, told = diffusers.UNet2DModel.from_pretrained(
    tmp_path, output_loading_info=True
  )
  assert not any(told.values()), told
  scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path)
  assert dict(scheduler.config).items() >= {
    'num_train_timesteps': 9, 'beta_start': 0.1, 'beta_end': 0.2
  }.items()  # fmt: skip
  x = np.random.default_rng(0).standard_normal((2, 8, 8, 3), np.float32)
  t = np.array([3.0, 700.0], np.float32)
  label = None if net.num_classes is None else np.array([1, 3], np.int32)
  with torch.no_grad():
    theirs = model(
      torch.tensor(x.transpose(0, 3, 1, 2)),
      torch.tensor(t),
      class_labels=None if label is None else torch.tensor(label),
    ).sample.numpy()
  ours = jax.jit(
    lambda p, x: net.apply({'params': p}, x, t, label=label, train=False)
  )(params, x)
  assert np.abs(theirs).mean() > 0.05
  np.testing.assert_allclose(
    np.asarray(ours).transpose(0, 3, 1, 2), theirs, atol=2e-5, rtol=2e-5
  )
  text = json.loads((tmp_path / 'config.json').read_text(encoding='utf-8'))
  assert text['_class_name'] == 'UNet2DModel'
