"""The process of `train_step.py` that runs PyTorch; it needs no JAX.

A step draws a noise level and noise, makes x_t and predicts; its loss is the
mean square of the output less the noise. Then come the gradient, clipping
where the config has it, fused Adam and the average of the parameters by one
multi-tensor lerp. It has less to do than cdm's step: the low-res image is
ready made, there is no variational term, and no scalar but the loss is
computed. A forward pass is the network alone, without dropout.

The dtype bfloat16 is `torch.autocast`; parameters stay float32, as ours do.
"""

import contextlib
import importlib.util
import os
import pathlib
import shutil
import time
import types

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import step_process, torch_unet

COMPILERS = ('c++', 'g++', 'clang++')  # those that torch.compile looks for


def start(*, about, compiled, layout, tf32, module):
  """Returns the functions of the process, see `step_process.serve`.

  Args:
    about: what `step_of_cdm.Bench.describe` returned.
    compiled: whether to run through `torch.compile`.
    layout: 'channels_last' or 'contiguous'.
    tf32: whether products of float32 may use TensorFloat-32.
    module: 'FILE.py:NAME', a function or class with the arguments of
      `torch_unet.TorchUNet`; None for that one.
  """
  allow_tf32(tf32)
  bench = Bench(about, compiled=compiled, layout=layout, module=module)
  return {
    'ready': bench.describe,
    'compare': bench.compare,
    'prepare': bench.prepare,
    'run': bench.run,
    'peak': bench.peak,
  }


def allow_tf32(allowed):
  """Sets whether products of float32 may use TensorFloat-32."""
  torch.backends.cuda.matmul.allow_tf32 = allowed
  torch.backends.cudnn.allow_tf32 = allowed


class Bench:
  """A network in PyTorch, with its optimizer and its data."""

  def __init__(self, about, *, compiled, layout, module):
    self.about, self.compiled = about, compiled
    self.device = torch.device('cuda' if about['platform'] == 'gpu' else 'cpu')
    if about['platform'] not in ('cpu', 'gpu'):
      raise ValueError(
        f'PyTorch is run on CPUs and CUDA GPUs only; this is a '
        f'{about["platform"]}: give --frameworks=cdm.'
      )
    if self.device.type == 'cuda':
      if not torch.cuda.is_available():
        raise ValueError(
          'JAX sees a GPU and PyTorch sees none; install a PyTorch with CUDA, '
          'or set JAX_PLATFORMS=cpu to measure both on the CPU.'
        )
      torch.backends.cudnn.benchmark = True  # JAX tries its algorithms too.
    elif compiled and not (os.environ.get('CXX') or any_compiler()):
      raise ValueError(
        'torch.compile needs a C++ compiler on a CPU, and none was found '
        f'($CXX, {", ".join(COMPILERS)}); install one, or give '
        '--torch_compile=no.'
      )
    self.format = getattr(
      torch, {'contiguous': 'contiguous_format'}.get(layout, layout)
    )
    torch.manual_seed(0)
    make = torch_unet.TorchUNet if module is None else made_by(module)
    net = make(
      types.SimpleNamespace(**about['fields']),
      about['image_size'],
      about['lowres_channels'],
    )
    self.net = net.to(self.device, memory_format=self.format)
    self.call = None

  def describe(self):
    """Returns the size of the network, and what it runs on."""
    device = 'cpu'
    if self.device.type == 'cuda':
      device = torch.cuda.get_device_name(self.device)
    return {
      'parameters': sum(p.numel() for p in self.net.parameters()),
      'device': device,
      'threads': torch.get_num_threads(),
      'versions': {'torch': torch.__version__},
    }

  def compare(self, path):
    """Loads our parameters; compares output and gradient, in float32.

    Args:
      path: the file that `step_of_cdm.Bench.numbers` wrote.

    Returns:
      {'output': largest difference over the largest value,
       'gradient': norm of the difference over the norm, of all parameters,
       'worst': the same of the parameter that differs most, see `difference`,
       'worst_name': its name}
    """
    with np.load(path) as stored:
      part = {}
      for key in stored.files:
        kind, _, name = key.partition('/')
        part.setdefault(kind, {})[name] = stored[key]
    self.net.load_state_dict(torch_unet.state_of(part['param'], self.net))
    ours = torch_unet.state_of(part['grad'], self.net)
    inputs = {name: self._put(x) for name, x in part['input'].items()}
    tf32 = torch.backends.cudnn.allow_tf32
    allow_tf32(False)
    output = self.net.eval()(inputs.pop('x'), inputs.pop('noise'), **inputs)
    F.mse_loss(output, self._put(part['target'][''])).backward()
    allow_tf32(tf32)
    theirs = {n: p.grad.cpu() for n, p in self.net.named_parameters()}
    self.net.zero_grad(set_to_none=True)
    output = output.detach().cpu().permute(0, 2, 3, 1).numpy()
    return difference(output, part['output'][''], theirs, ours)

  def prepare(self, what):
    """Makes the program of `what` and runs it once; returns the seconds."""
    self.call = {'step': self._train, 'forward': self._forward}[what]()
    begin = time.perf_counter()
    self.call()
    self._wait()
    return {'first_seconds': time.perf_counter() - begin}

  def run(self, steps):
    """Runs the program some times; returns the seconds of all."""
    step_process.forget_peak()
    if self.device.type == 'cuda':
      torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    for _ in range(steps):
      self.call()
    self._wait()
    return {'seconds': time.perf_counter() - begin}

  def peak(self):
    """Returns the most memory held since the last `run` began."""
    if self.device.type == 'cuda':
      return {'peak_bytes': torch.cuda.max_memory_allocated()}
    return {'peak_bytes': step_process.peak_bytes()}

  def _wait(self):
    if self.device.type == 'cuda':
      torch.cuda.synchronize()

  def _train(self):
    """Returns the function that makes a step."""
    about, net = self.about, self.net.train()
    options = about['optimizer']
    if options['kind'] not in ('adam', 'adamw'):
      raise ValueError(
        f'The peer has Adam only; the config has {options["kind"]!r}. Give '
        '--config.optimizer.kind=adam.'
      )
    predict = torch.compile(net, dynamic=False) if self.compiled else net
    params = list(net.parameters())
    average = [p.detach().clone() for p in params]
    make = {'adam': torch.optim.Adam, 'adamw': torch.optim.AdamW}
    adam = make[options['kind']](
      params,
      lr=options['learning_rate'],
      betas=(options['b1'], options['b2']),
      eps=options['eps'],
      weight_decay=options['weight_decay'],
      fused=True,
    )
    image, given = self._batch()
    logsnr = torch.tensor(about['logsnr'], device=self.device)
    alpha, sigma = torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt()
    uses_t = about['fields']['condition_on'] == 't'
    width = about['fields']['learned_variance']

    def step():
      x_0 = image.float() / 127.5 - 1
      eps = torch.randn_like(x_0)
      t = torch.randint(len(logsnr), image.shape[:1], device=self.device)
      x_t = _per_image(alpha[t]) * x_0 + _per_image(sigma[t]) * eps
      noise = t.float() if uses_t else logsnr[t]
      with self._autocast():
        output = predict(x_t, noise, **given)
      target = torch.cat([eps, eps], dim=1) if width else eps
      F.mse_loss(output.float(), target).backward()
      if options['clip_norm'] is not None:
        torch.nn.utils.clip_grad_norm_(
          params, options['clip_norm'], foreach=True
        )
      adam.step()
      adam.zero_grad(set_to_none=True)
      with torch.no_grad():
        torch._foreach_lerp_(average, params, 1 - about['ema_decay'])

    return step

  def _forward(self):
    """Returns the function that predicts a batch."""
    net = self.net.eval()
    predict = torch.compile(net, dynamic=False) if self.compiled else net
    image, given = self._batch()
    x = torch.randn(image.shape, device=self.device)
    x = x.contiguous(memory_format=self.format)
    noise = torch.linspace(0.5, 4.0, len(x), device=self.device)

    def forward():
      with torch.no_grad(), self._autocast():
        predict(x, noise, **given)

    return forward

  def _batch(self):
    """Returns (uint8 images, {name of a condition: tensor})."""
    about, n = self.about, self.about['batch']
    size = about['image_size']
    rng = np.random.default_rng(0)

    def images(channels, draw):
      return self._put(draw((n, size, size, channels)))

    image = images(3, lambda s: rng.integers(0, 256, s, dtype=np.uint8))
    given = {}
    if about['lowres_channels']:
      given['lowres'] = images(
        about['lowres_channels'],
        lambda s: rng.standard_normal(s, dtype=np.float32),
      )
    if about['fields']['num_classes'] is not None:
      label = rng.integers(0, about['fields']['num_classes'], n)
      given['label'] = torch.tensor(label, device=self.device)
    if about['fields']['lowres_level']:
      given['lowres_level'] = torch.rand(n, device=self.device)
    return image, given

  def _put(self, x):
    """Returns an array on the device; images as [B, C, H, W]."""
    x = torch.tensor(x, device=self.device)
    if x.dtype == torch.int32:
      x = x.long()
    if x.ndim == 4:
      x = x.permute(0, 3, 1, 2).contiguous(memory_format=self.format)
    return x

  def _autocast(self):
    if self.about['dtype'] == 'float32':
      return contextlib.nullcontext()
    return torch.autocast(self.device.type, torch.bfloat16)


def difference(output, our_output, grads, our_grads):
  """Compares two networks; see `Bench.compare`.

  The gradient of some parameters is zero but for rounding, as that of the bias
  of keys, which softmax cancels. So a parameter's difference is taken over its
  own norm plus a thousandth of the norm of all.
  """
  squares = {n: our_grads[n].double().square().sum().item() for n in our_grads}
  errors = {
    n: (grads[n].double() - our_grads[n].double()).square().sum().item()
    for n in our_grads
  }
  norm = sum(squares.values()) ** 0.5
  relative = {
    n: errors[n] ** 0.5 / (squares[n] ** 0.5 + 1e-3 * norm) for n in errors
  }
  worst = max(relative, key=relative.__getitem__)
  return {
    'output': float(
      np.abs(output - our_output).max() / np.abs(our_output).max()
    ),
    'gradient': sum(errors.values()) ** 0.5 / norm,
    'worst': relative[worst],
    'worst_name': worst,
  }


def any_compiler():
  """Returns the path of a C++ compiler, or None."""
  return next(filter(None, map(shutil.which, COMPILERS)), None)


def made_by(module):
  """Returns the function or class that 'FILE.py:NAME' names."""
  path, _, name = module.partition(':')
  if not pathlib.Path(path).is_file() or not name:
    raise ValueError(
      f'--torch_module={module} is not FILE.py:NAME, a file that is there and '
      'the name of a function or class in it.'
    )
  spec = importlib.util.spec_from_file_location('torch_module', path)
  loaded = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(loaded)
  if not hasattr(loaded, name):
    raise ValueError(f'--torch_module={module}: the file has no {name}.')
  return getattr(loaded, name)


def _per_image(a):
  return a[:, None, None, None]


if __name__ == '__main__':
  step_process.serve(start)
