"""`benchmarks/torch_unet.py`: the peer in PyTorch computes what our U-Net does.

Its numbers are held to those of the published programs as well
(`tests/oracles`), without a line of JAX between.
"""

import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.oracles import (
  adm_network,
  assert_matches,
  oracle,
  rule_weights,
)

from cdm.models.pretrained import unet as published
from cdm.models.unet import UNet

torch = pytest.importorskip(
  'torch', reason='the peer is PyTorch, which cdm does not need'
)

from benchmarks import (  # noqa: E402
  step_models,
  step_of_cdm,
  step_of_torch,
  torch_unet,
)
from cdm.training import program  # noqa: E402

TINY = dict(features=8, multipliers=(1, 2), num_blocks=1, norm_groups=4)
# All fields that change what is computed.
NETS = {
  'biggan, film, heads, label, learned variance': dict(
    attention_resolutions=(8,),
    num_heads=2,
    num_classes=3,
    null_class=True,
    learned_variance=True,
    dropout=0.3,
  ),
  'conv, additive, rescaled skips, lowres': dict(
    resample='conv',
    embedding='additive',
    skip_rescale=True,
    condition_on='sqrt_alpha_bar',
    norm_eps=1e-3,
  ),
  'plain, patches, level of lowres, width of a head': dict(
    resample='plain',
    patch_size=2,
    head_features=4,
    condition_on='logsnr',
    condition_scale=300.0,
    lowres_level=True,
    features=9,
    multipliers=(4 / 3, 8 / 3),
    norm_groups=32,
  ),
}
LOWRES = ('conv, additive, rescaled skips, lowres', list(NETS)[2])


def peer(net, size, lowres_channels=0):
  fields = {
    name: getattr(net, name)
    for name in type(net).__dataclass_fields__
    if name not in ('parent', 'name')
  }
  return torch_unet.TorchUNet(
    types.SimpleNamespace(**fields), size, lowres_channels
  )


@pytest.mark.parametrize('name', NETS)
def test_output_and_gradient_are_ours(name):
  """In float32, to 2e-5: of the largest output, and of the gradient's norm."""
  net, size = UNet(**(TINY | NETS[name])), 8
  channels = 3 if name in LOWRES else 0
  inputs = step_of_cdm._inputs(net, 2, size, channels)
  shapes = jax.eval_shape(
    lambda: net.init(
      jax.random.key(0),
      **{k: jnp.asarray(v) for k, v in inputs.items()},
      train=False,
    )
  )['params']
  params = step_of_cdm._filled(shapes)
  width = 6 if net.learned_variance else 3
  target = np.asarray(
    np.random.default_rng(3).standard_normal((2, size, size, width)),
    np.float32,
  )

  def loss(params):
    output = step_of_cdm._predict(net, params, inputs)
    return jnp.square(output - target).mean(), output

  grads, output = jax.jit(jax.grad(loss, has_aux=True))(params)

  def nchw(x):
    x = torch.tensor(np.asarray(x))
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x

  module = peer(net, size, channels).eval()
  module.load_state_dict(torch_unet.state_of(step_of_cdm._flat(params), module))
  given = {key: nchw(value) for key, value in inputs.items()}
  if 'label' in given:
    given['label'] = given['label'].long()
  theirs = module(given.pop('x'), given.pop('noise'), **given)
  (theirs - nchw(target)).square().mean().backward()
  found = step_of_torch.difference(
    theirs.detach().permute(0, 2, 3, 1).numpy(),
    np.asarray(output),
    {n: p.grad for n, p in module.named_parameters()},
    torch_unet.state_of(step_of_cdm._flat(grads), module),
  )
  assert found['output'] < 2e-5
  assert found['gradient'] < 2e-5
  assert found['worst'] < 2e-4, found['worst_name']


def loaded(net, params, size, lowres_channels=0):
  module = peer(net, size, lowres_channels).eval()
  flat = step_of_cdm._flat(params)
  module.load_state_dict(torch_unet.state_of(flat, module))
  return module


@pytest.mark.parametrize(
  'name, order',
  [
    ('updown', 'legacy'),
    ('plain_heads4', 'legacy'),
    ('new_attention_order', 'new'),
    ('uncond_additive', 'legacy'),
  ],
)
def test_outputs_gradients_and_counts_are_those_of_adm(name, order):
  tables, arrays = oracle('adm_unet')
  settings = tables['settings']['models'][name]
  net, size = adm_network(settings['kw']), settings['size'][0]
  params = published.adm_to_cdm(
    rule_weights(tables['weights'][name]),
    net,
    image_size=(size, size),
    attention_order=order,
  )
  module = loaded(net, params, size)
  count = sum(p.numel() for p in module.parameters())
  assert count == tables['settings']['measured'][name]['parameters']

  x = torch.tensor(arrays[f'{name}/x'], requires_grad=True)
  given = {}
  if f'{name}/y' in arrays:
    given['label'] = torch.tensor(arrays[f'{name}/y'])
  output = module(x, torch.tensor(arrays[f'{name}/t']), **given)
  (output * torch.tensor(arrays[f'{name}/probe'])).sum().backward()
  for key, found in (('out_f32', output.detach()), ('grad_x_f64', x.grad)):
    key = f'{name}/{key}'
    assert_matches(found, arrays[key], tables['keys'][key]['tol'], key)


@pytest.mark.parametrize(
  'size, lowres_channels, fields, expected',
  [
    (  # [ADM] ImageNet 64; 295.9M
      64,
      0,
      dict(
        features=192,
        multipliers=(1, 2, 3, 4),
        num_blocks=3,
        attention_resolutions=(32, 16, 8),
        head_features=64,
        num_classes=1000,
        learned_variance=True,
      ),
      295_904_454,
    ),
    (  # [ADM] ImageNet 256; 554M
      256,
      0,
      dict(
        features=256,
        multipliers=(1, 1, 2, 2, 4, 4),
        num_blocks=2,
        attention_resolutions=(32, 16, 8),
        head_features=64,
        num_classes=1000,
        learned_variance=True,
      ),
      553_838_086,
    ),
    (  # [IDDPM] ImageNet 64; 270M
      64,
      0,
      dict(
        features=192,
        multipliers=(1, 2, 3, 4),
        num_blocks=3,
        attention_resolutions=(16, 8),
        num_heads=4,
        resample='conv',
        num_classes=1000,
        learned_variance=True,
      ),
      273_049_350,
    ),
    (  # [SR3] 16 to 128; 550M
      128,
      3,
      dict(
        features=128,
        multipliers=(1, 2, 4, 8, 8),
        num_blocks=3,
        attention_resolutions=(16,),
        embedding='additive',
        skip_rescale=True,
        condition_on='sqrt_alpha_bar',
      ),
      560_719_107,
    ),
  ],
)
def test_published_networks_have_their_parameters(
  size, lowres_channels, fields, expected
):
  with torch.device('meta'):  # Nothing is allocated.
    module = peer(UNet(**fields), size, lowres_channels)
  assert sum(p.numel() for p in module.parameters()) == expected


def test_dropout_is_random_in_training_alone():
  net = UNet(**(TINY | dict(dropout=0.5)))
  torch.manual_seed(0)
  module = peer(net, 8)
  x, t = torch.randn(2, 3, 8, 8), torch.tensor([1.0, 2.0])
  with torch.no_grad():
    a, b = module.train()(x, t), module(x, t)
    assert not torch.equal(a, b)
    a, b = module.eval()(x, t), module(x, t)
  assert torch.equal(a, b)


def test_parameters_of_another_network_are_refused():
  module = peer(UNet(**TINY), 8)
  flat = {
    name.replace('.', '/').replace('weight', 'kernel'): p.detach().numpy()
    for name, p in module.named_parameters()
    if name.startswith('conv_in')
  }
  with pytest.raises(ValueError, match=r"conv_in/kernel .* in PyTorch's order"):
    torch_unet.state_of(flat, module)
  flat['conv_in/kernel'] = flat['conv_in/kernel'].transpose(2, 3, 1, 0)
  with pytest.raises(ValueError, match='parameters of its own'):
    torch_unet.state_of(flat, module)


# --- The process


@pytest.fixture(scope='module')
def about():
  """What our process says of a stage that has every condition."""
  c = step_models.load(
    step_models.CONFIGS / 'smoke_sr.py', (), batch=2, dtype='bfloat16'
  )
  training = program.assemble(c, devices=jax.local_devices()[:1])
  return json.loads(json.dumps(step_of_cdm.Bench(c, training).describe()))


def bench(about, **options):
  given = dict(compiled=False, layout='channels_last', module=None)
  return step_of_torch.Bench(about, **(given | options))


def test_a_step_changes_every_parameter_and_a_forward_pass_none(about):
  """With autocast, parameters stay float32."""
  peer = bench(about)
  assert peer.describe()['parameters'] == about['parameters']

  def values():
    return {n: p.detach().clone() for n, p in peer.net.named_parameters()}

  before = values()
  assert peer.prepare('forward')['first_seconds'] > 0
  after = values()
  assert all(torch.equal(before[n], after[n]) for n in before)
  peer.prepare('step')
  assert peer.run(1)['seconds'] > 0
  after = values()
  assert not [n for n in before if torch.equal(before[n], after[n])]
  assert {p.dtype for p in after.values()} == {torch.float32}


def test_what_a_peer_cannot_do_is_refused(about, monkeypatch):
  adafactor = about | {'optimizer': about['optimizer'] | {'kind': 'adafactor'}}
  with pytest.raises(ValueError, match="has Adam only; .* 'adafactor'"):
    bench(adafactor).prepare('step')
  with pytest.raises(ValueError, match='this is a tpu: give --frameworks=cdm'):
    bench(about | {'platform': 'tpu'})
  monkeypatch.delenv('CXX', raising=False)
  monkeypatch.setattr(step_of_torch.shutil, 'which', lambda name: None)
  with pytest.raises(ValueError, match=r'C\+\+ compiler .* --torch_compile=no'):
    bench(about, compiled=True)


def test_a_module_of_ones_own_takes_the_place_of_the_peer(about, tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    'import torch\n'
    'def make(net, image_size, lowres_channels):\n'
    '  return torch.nn.Conv2d(net.out_channels, image_size, 1, bias=False)\n',
    encoding='utf-8',
  )
  mine = bench(about, module=f'{path}:make')
  assert mine.describe()['parameters'] == 3 * about['image_size']
  with pytest.raises(ValueError, match='the file has no other'):
    bench(about, module=f'{path}:other')
  with pytest.raises(ValueError, match='not FILE.py:NAME'):
    bench(about, module=str(path))
