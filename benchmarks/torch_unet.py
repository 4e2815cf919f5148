"""The U-Net of `cdm` written once more in PyTorch, as a peer of its speed.

A plain module with the fields of `cdm.models.unet.UNet`, [DDPM], [IDDPM], [ADM]
and [SR3] among them. Its modules have the names of ours, so that parameters
carry over by name (`state_of`), and both networks then compute the same
function. It is written as PyTorch runs best: images are [B, C, H, W], for
`torch.channels_last`, attention is `scaled_dot_product_attention`, and under
`torch.autocast` the embeddings and the last layer stay float32, as in ours.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from cdm.models import unet_plan


class TorchUNet(nn.Module):
  """A U-Net over images, conditioned on noise level, label and low-res image.

  Args of the constructor:
    net: any object with the fields of `cdm.models.unet.UNet`.
    image_size: H = W of the images.
    lowres_channels: channels of the low-res image; 0 if there is none.
  """

  def __init__(self, net: Any, image_size: int, lowres_channels: int = 0):
    super().__init__()
    self.net = net
    width, patch = 4 * net.features, net.patch_size**2
    emb = 0
    if net.condition_on != 'nothing':
      emb, self.noise = width, ScalarEmbedding(net.features, width)
    if net.num_classes is not None:
      emb, rows = width, net.num_classes + net.null_class
      self.label = nn.Embedding(rows, width)
    if net.lowres_level:
      emb, self.lowres_level = width, ScalarEmbedding(net.features, width)

    levels = unet_plan.plan(net, (image_size, image_size))
    channels = levels[0].features
    self.conv_in = conv((net.out_channels + lowres_channels) * patch, channels)
    # What `forward` does after conv_in: (operation, name of its module).
    self.route = [('skip', None)]
    skips = [channels]
    for level, coarser in zip(levels, (*levels[1:], None), strict=True):
      for i in range(level.num_blocks):
        self._block(f'down_{level.name}_block_{i}', channels, level, emb)
        channels = level.features
        if level.attention:
          self._attention(f'down_{level.name}_attention_{i}', level)
        self.route.append(('skip', None))
        skips.append(channels)
      if coarser:
        self._halve(f'down_{level.name}_to_{coarser.name}', level, emb)
        self.route.append(('skip', None))
        skips.append(channels)

    self._block('mid_block_0', channels, level, emb)
    self._attention('mid_attention', level)
    self._block('mid_block_1', channels, level, emb)

    for level, finer in zip(levels[::-1], (*levels[-2::-1], None), strict=True):
      for i in range(level.num_blocks + 1):
        self.route.append(('join', None))
        joined = channels + skips.pop()
        self._block(f'up_{level.name}_block_{i}', joined, level, emb)
        channels = level.features
        if level.attention:
          self._attention(f'up_{level.name}_attention_{i}', level)
      if finer:
        self._double(f'up_{level.name}_to_{finer.name}', level, emb)
    self.norm_out = GroupNorm(channels, net)
    out = net.out_channels * (1 + net.learned_variance) * patch
    self.conv_out = conv(channels, out)

  def _block(self, name, channels, level, emb, resample=None):
    block = ResBlock(
      channels, level.features, emb, level.dropout, resample, self.net
    )
    self.add_module(name, block)
    self.route.append(('block', name))

  def _layer(self, name, layer):
    self.add_module(name, layer)
    self.route.append(('layer', name))

  def _attention(self, name, level):
    self._layer(name, Attention(level.features, level.num_heads, self.net))

  def _halve(self, name, level, emb):
    if self.net.resample == 'biggan':
      self._block(name, level.features, level, emb, 'half')
    elif self.net.resample == 'conv':
      self._layer(name, conv(level.features, level.features, stride=2))
    else:
      self.route.append(('half', None))

  def _double(self, name, level, emb):
    if self.net.resample == 'biggan':
      self._block(name, level.features, level, emb, 'double')
      return
    self.route.append(('double', None))
    if self.net.resample == 'conv':
      self._layer(name, conv(level.features, level.features))

  def forward(self, x, noise, *, label=None, lowres=None, lowres_level=None):
    """Returns one prediction per image.

    Args:
      x: [B, C, H, W] noisy images.
      noise: [B], t if condition_on is 't', else the log-SNR; None if the
        network is conditioned on nothing.
      label: [B] int64, if num_classes is set.
      lowres: [B, c, H, W], already upsampled, if lowres_channels is set.
      lowres_level: [B] in [0, 1], if that field is set.

    Returns:
      float32 [B, C, H, W], with learned_variance twice as many channels.
    """
    with torch.autocast(x.device.type, enabled=False):
      emb = self._embed(noise, label, lowres_level)
    if lowres is not None:
      x = torch.cat([x, lowres], dim=1)
    h = self.conv_in(space_to_depth(x, self.net.patch_size))

    skips = []
    for operation, name in self.route:
      if operation == 'skip':
        skips.append(h)
      elif operation == 'join':
        h = torch.cat([h, skips.pop()], dim=1)
      elif operation == 'block':
        h = getattr(self, name)(h, emb)
      elif operation == 'layer':
        h = getattr(self, name)(h)
      else:
        h = halve(h) if operation == 'half' else double(h)

    with torch.autocast(x.device.type, enabled=False):
      h = self.conv_out(F.silu(self.norm_out(h.float())))
    return depth_to_space(h, self.net.patch_size)

  def _embed(self, noise, label, lowres_level):
    """Returns silu of the sum of all embeddings, [B, E]; None without any."""
    net, total = self.net, None
    if noise is not None:
      scale = net.condition_scale
      if scale is None:
        scale = 1.0 if net.condition_on == 't' else 1000.0
      total = self.noise(scale * condition_scalar(noise, net.condition_on))
    if label is not None:
      part = self.label(label)
      total = part if total is None else total + part
    if lowres_level is not None:
      part = self.lowres_level(1000.0 * lowres_level)
      total = part if total is None else total + part
    return None if total is None else F.silu(total)


class ResBlock(nn.Module):
  """Residual block whose activations the embedding shifts, or also scales."""

  def __init__(self, channels, features, emb, dropout, resample, net):
    super().__init__()
    self.film_or_shift = emb and net.embedding
    self.dropout = dropout
    self.resample = {None: None, 'half': halve, 'double': double}[resample]
    self.factor = math.sqrt(0.5) if net.skip_rescale else 1.0
    self.norm1 = GroupNorm(channels, net)
    self.conv1 = conv(channels, features)
    if self.film_or_shift == 'film':
      self.film = nn.Linear(emb, 2 * features)
    elif self.film_or_shift:
      self.shift = nn.Linear(emb, features)
    self.norm2 = GroupNorm(features, net)
    self.conv2 = conv(features, features)
    self.skip = (
      nn.Conv2d(channels, features, 1) if channels != features else None
    )

  def forward(self, x, emb):
    """x: [B, C, H, W], emb: [B, E] or None -> [B, features, H', W']."""
    h = F.silu(self.norm1(x))
    if self.resample is not None:
      h, x = self.resample(h), self.resample(x)
    h = self.conv1(h)
    if self.film_or_shift == 'film':
      scale, shift = self.film(emb)[:, :, None, None].chunk(2, dim=1)
      h = self.norm2(h) * (1 + scale) + shift
    elif self.film_or_shift:
      h = self.norm2(h + self.shift(emb)[:, :, None, None])
    else:
      h = self.norm2(h)
    h = F.dropout(F.silu(h), self.dropout, self.training)
    h = self.conv2(h)
    x = x if self.skip is None else self.skip(x)
    return x + h if self.factor == 1.0 else (x + h) * self.factor


class Attention(nn.Module):
  """Residual self-attention between all pixels."""

  def __init__(self, channels, num_heads, net):
    super().__init__()
    self.num_heads = num_heads
    self.factor = math.sqrt(0.5) if net.skip_rescale else 1.0
    self.norm = GroupNorm(channels, net)
    self.qkv = nn.Linear(channels, 3 * channels)
    self.out = nn.Linear(channels, channels)

  def forward(self, x):
    """x: [B, C, H, W] -> [B, C, H, W]."""
    b, c, height, width = x.shape
    h = self.norm(x).permute(0, 2, 3, 1).reshape(b, height * width, c)
    qkv = self.qkv(h).reshape(b, -1, 3, self.num_heads, c // self.num_heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, heads, N, d]
    h = F.scaled_dot_product_attention(q, k, v)
    h = self.out(h.transpose(1, 2).reshape(b, -1, c))
    h = h.reshape(b, height, width, c).permute(0, 3, 1, 2)
    return x + h if self.factor == 1.0 else (x + h) * self.factor


class ScalarEmbedding(nn.Module):
  """Embeds one scalar per image: sinusoids, then two dense layers."""

  def __init__(self, features, out_features):
    super().__init__()
    half = features // 2
    frequencies = 10_000.0 ** (-np.arange(half) / half)
    self.register_buffer(
      'frequencies', torch.tensor(frequencies).float(), persistent=False
    )
    self.odd = features % 2
    self.dense1 = nn.Linear(features, out_features)
    self.dense2 = nn.Linear(out_features, out_features)

  def forward(self, t):
    """t: [B] -> [B, out_features]."""
    angle = t[:, None] * self.frequencies[None]
    h = F.pad(torch.cat([angle.cos(), angle.sin()], dim=-1), (0, self.odd))
    return self.dense2(F.silu(self.dense1(h)))


class GroupNorm(nn.GroupNorm):
  """Group normalisation whose output has the dtype of its input."""

  def __init__(self, channels, net):
    super().__init__(group_count(channels, net.norm_groups), channels)
    self.eps = net.norm_eps

  def forward(self, x):
    # autocast computes it in float32 on GPUs, and would leave it so.
    return super().forward(x).to(x.dtype)


def group_count(channels: int, norm_groups: int) -> int:
  """Returns the number of groups, as cdm's `group_norm.group_count` does."""
  if channels % norm_groups == 0:
    return norm_groups
  both = math.gcd(channels, norm_groups)
  fits = [n for n in range(1, both + 1) if both % n == 0 and channels // n >= 4]
  return max(fits, default=1)


def conv(channels: int, features: int, stride: int = 1) -> nn.Conv2d:
  """Returns a 3x3 convolution that pads one pixel on every side."""
  return nn.Conv2d(channels, features, 3, stride=stride, padding=1)


def halve(x: torch.Tensor) -> torch.Tensor:
  """Averages 2x2 squares."""
  return F.avg_pool2d(x, 2)


def double(x: torch.Tensor) -> torch.Tensor:
  """Repeats every pixel 2x2 times."""
  return F.interpolate(x, scale_factor=2, mode='nearest')


def space_to_depth(x: torch.Tensor, p: int) -> torch.Tensor:
  """Turns p x p squares into pixels; channels last, as ours are ordered."""
  if p == 1:
    return x
  b, c, h, w = x.shape
  x = x.reshape(b, c, h // p, p, w // p, p).permute(0, 3, 5, 1, 2, 4)
  return x.reshape(b, p * p * c, h // p, w // p)


def depth_to_space(x: torch.Tensor, p: int) -> torch.Tensor:
  """Inverts `space_to_depth`."""
  if p == 1:
    return x
  b, c, h, w = x.shape
  x = x.reshape(b, p, p, c // (p * p), h, w).permute(0, 3, 4, 1, 5, 2)
  return x.reshape(b, c // (p * p), h * p, w * p)


def condition_scalar(noise: torch.Tensor, condition_on: str) -> torch.Tensor:
  """Returns the scalar by which a noise level [B] is embedded."""
  noise = noise.float()
  if condition_on == 't':
    return noise
  if condition_on == 'sqrt_alpha_bar':
    return torch.sigmoid(noise).sqrt()
  return torch.atan(torch.exp(-0.5 * noise)) * (2 / math.pi)


def state_of(
  leaves: Mapping[str, np.ndarray], module: nn.Module
) -> dict[str, torch.Tensor]:
  """Converts our parameters, or their gradient, to PyTorch's layout.

  Args:
    leaves: {'mid_block_0/conv1/kernel': array}, as Flax names and stores them.
    module: the `TorchUNet`, whose shapes they must have.

  Returns:
    {'mid_block_0.conv1.weight': tensor}, for `module.load_state_dict`.

  Raises:
    ValueError: the two networks do not have the same parameters.
  """
  shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
  state = {}
  for name, value in leaves.items():
    *path, leaf = name.split('/')
    theirs = '.'.join([*path, 'bias' if leaf == 'bias' else 'weight'])
    value = np.asarray(value, np.float32)
    if leaf == 'kernel' and value.ndim == 4:
      value = value.transpose(3, 2, 0, 1)
    elif leaf == 'kernel':
      value = value.T
    shape = shapes.pop(theirs, None)
    # A dense layer over channels is a 1x1 convolution here.
    if shape not in (value.shape, (*value.shape, 1, 1)):
      raise ValueError(
        f"{name} has shape {value.shape} in PyTorch's order; the module has "
        f'{shape or "no such parameter"}.'
      )
    # A tensor may not share the memory of an array that cannot be written.
    state[theirs] = torch.tensor(value).reshape(shape)
  if shapes:
    raise ValueError(f'the module has parameters of its own: {sorted(shapes)}.')
  return state
