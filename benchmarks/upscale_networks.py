"""Networks that enlarge 4x, in PyTorch with random parameters, to be timed.

Their shapes are those of the two networks that Real-ESRGAN's users run most:
SRVGG, a chain of convolutions, and RRDB, dense blocks within blocks [ESRGAN].
"""

import torch
import torch.nn.functional as F
from torch import nn

FACTOR = 4
# Published numbers of parameters, which a test holds.
PARAMETERS = {'srvgg': 1_213_296, 'rrdb': 16_697_987}


class Srvgg(nn.Module):
  """32 convolutions of 64 channels, and one to the squares of the result."""

  def __init__(self, convolutions=32, features=64):
    super().__init__()
    widths = [3] + [features] * (convolutions + 1)
    self.body = nn.ModuleList(
      nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.PReLU(b))
      for a, b in zip(widths[:-1], widths[1:], strict=True)
    )
    self.last = nn.Conv2d(features, 3 * FACTOR**2, 3, padding=1)

  def forward(self, x):
    """Returns [B, 3, 4H, 4W] of [B, 3, H, W]."""
    y = x
    for layer in self.body:
      y = layer(y)
    y = F.pixel_shuffle(self.last(y), FACTOR)
    return y + F.interpolate(x, scale_factor=FACTOR, mode='nearest')


class _Dense(nn.Module):
  """Five convolutions, each of all that is before it."""

  def __init__(self, features, growth):
    super().__init__()
    inputs = [features + i * growth for i in range(5)]
    outputs = [growth] * 4 + [features]
    self.convolutions = nn.ModuleList(
      nn.Conv2d(a, b, 3, padding=1)
      for a, b in zip(inputs, outputs, strict=True)
    )

  def forward(self, x):
    found = [x]
    for layer in self.convolutions[:-1]:
      found.append(F.leaky_relu(layer(torch.cat(found, 1)), 0.2, inplace=True))
    return x + 0.2 * self.convolutions[-1](torch.cat(found, 1))


class _Residual(nn.Module):
  """Three dense blocks."""

  def __init__(self, features, growth):
    super().__init__()
    self.blocks = nn.Sequential(*(_Dense(features, growth) for _ in range(3)))

  def forward(self, x):
    return x + 0.2 * self.blocks(x)


class Rrdb(nn.Module):
  """23 residual blocks of dense blocks, then two doublings."""

  def __init__(self, blocks=23, features=64, growth=32):
    super().__init__()
    self.first = nn.Conv2d(3, features, 3, padding=1)
    self.body = nn.Sequential(
      *(_Residual(features, growth) for _ in range(blocks)),
      nn.Conv2d(features, features, 3, padding=1),
    )
    self.doublings = nn.ModuleList(
      nn.Conv2d(features, features, 3, padding=1) for _ in range(2)
    )
    self.end = nn.Conv2d(features, features, 3, padding=1)
    self.last = nn.Conv2d(features, 3, 3, padding=1)

  def forward(self, x):
    """Returns [B, 3, 4H, 4W] of [B, 3, H, W]."""
    x = self.first(x)
    x = x + self.body(x)
    for layer in self.doublings:
      x = F.interpolate(x, scale_factor=2, mode='nearest')
      x = F.leaky_relu(layer(x), 0.2, inplace=True)
    return self.last(F.leaky_relu(self.end(x), 0.2, inplace=True))


NETWORKS = {'srvgg': Srvgg, 'rrdb': Rrdb}
