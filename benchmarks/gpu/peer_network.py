"""The U-Net of the public PyTorch SR3, in PyTorch, with that project's names.

It is written from the facts of its description: blocks of GroupNorm, SiLU,
dropout and a convolution, a noise level that is added after a block's first
half, one attention head without biases in qkv, strided convolutions down,
nearest neighbour and a convolution up. A file of its weights therefore fits
`models.pretrained.unet.sr3_to_cdm`, and the numbers of the public program are
in tests/oracles/sr3_unet.npz.
"""

import math

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
  """GroupNorm, SiLU, dropout, 3x3 convolution."""

  def __init__(self, features, out_features, groups, dropout=0.0):
    super().__init__()
    self.block = nn.Sequential(
      nn.GroupNorm(groups, features),
      nn.SiLU(),
      nn.Dropout(dropout) if dropout else nn.Identity(),
      nn.Conv2d(features, out_features, 3, padding=1),
    )

  def forward(self, x):
    return self.block(x)


class NoiseShift(nn.Module):
  """Adds a projection of the noise embedding to every pixel."""

  def __init__(self, width, features):
    super().__init__()
    self.noise_func = nn.Sequential(nn.Linear(width, features))

  def forward(self, x, emb):
    return x + self.noise_func(emb)[:, :, None, None]


class ResidualBlock(nn.Module):
  """Two blocks around the noise level, and the input added."""

  def __init__(self, features, out_features, width, groups, dropout):
    super().__init__()
    self.noise_func = NoiseShift(width, out_features)
    self.block1 = Block(features, out_features, groups)
    self.block2 = Block(out_features, out_features, groups, dropout)
    self.res_conv = nn.Identity()
    if features != out_features:
      self.res_conv = nn.Conv2d(features, out_features, 1)

  def forward(self, x, emb):
    h = self.noise_func(self.block1(x), emb)
    return self.block2(h) + self.res_conv(x)


class Attention(nn.Module):
  """Attention with one head over all pixels, the input added."""

  def __init__(self, features, groups):
    super().__init__()
    self.norm = nn.GroupNorm(groups, features)
    self.qkv = nn.Conv2d(features, 3 * features, 1, bias=False)
    self.out = nn.Conv2d(features, features, 1)

  def forward(self, x):
    b, c, height, width = x.shape
    q, k, v = self.qkv(self.norm(x)).reshape(b, 3, c, -1).unbind(1)
    weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(c), dim=-1)
    h = v @ weights.transpose(1, 2)  # [B, C, pixels]
    return x + self.out(h.reshape(b, c, height, width))


class Stage(nn.Module):
  """A residual block, and attention where the map has its size."""

  def __init__(self, features, out_features, width, groups, dropout, attends):
    super().__init__()
    self.res_block = ResidualBlock(
      features, out_features, width, groups, dropout
    )
    self.attn = Attention(out_features, groups) if attends else None

  def forward(self, x, emb):
    x = self.res_block(x, emb)
    return x if self.attn is None else self.attn(x)


class Halve(nn.Module):
  """A 3x3 convolution of stride 2."""

  def __init__(self, features):
    super().__init__()
    self.conv = nn.Conv2d(features, features, 3, stride=2, padding=1)

  def forward(self, x):
    return self.conv(x)


class Double(nn.Module):
  """Nearest neighbour, then a 3x3 convolution."""

  def __init__(self, features):
    super().__init__()
    self.conv = nn.Conv2d(features, features, 3, padding=1)

  def forward(self, x):
    return self.conv(functional.interpolate(x, scale_factor=2, mode='nearest'))


class NoiseLevel(nn.Module):
  """[sin, cos] of the level over frequencies from 1 down to 1e-4."""

  def __init__(self, width):
    super().__init__()
    self.width = width

  def forward(self, level):
    half = self.width // 2
    steps = torch.arange(half, dtype=level.dtype, device=level.device) / half
    angles = level.reshape(-1, 1) * torch.exp(-math.log(1e4) * steps)
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)


class PeerUNet(nn.Module):
  """[B, 6, H, W], low-res channels first, and levels [B] -> [B, 3, H, W]."""

  def __init__(
    self,
    *,
    features=64,
    multipliers=(1, 2, 4, 8, 8),
    num_blocks=2,
    attention_sizes=(16,),
    image_size=128,
    in_channels=6,
    groups=32,
    dropout=0.2,
  ):
    super().__init__()
    width = features
    self.noise_level_mlp = nn.Sequential(
      NoiseLevel(features),
      nn.Linear(features, 4 * features),
      nn.SiLU(),
      nn.Linear(4 * features, features),
    )

    def stage(before, after, attends):
      return Stage(before, after, width, groups, dropout, attends)

    size, now = image_size, features
    down, skips = [nn.Conv2d(in_channels, now, 3, padding=1)], [now]
    for i, factor in enumerate(multipliers):
      for _ in range(num_blocks):
        down.append(stage(now, features * factor, size in attention_sizes))
        now = features * factor
        skips.append(now)
      if i + 1 < len(multipliers):
        down.append(Halve(now))
        skips.append(now)
        size //= 2
    self.downs = nn.ModuleList(down)
    self.mid = nn.ModuleList([stage(now, now, True), stage(now, now, False)])
    up = []
    for i, factor in reversed(list(enumerate(multipliers))):
      for _ in range(num_blocks + 1):
        after = features * factor
        up.append(stage(now + skips.pop(), after, size in attention_sizes))
        now = after
      if i:
        up.append(Double(now))
        size *= 2
    self.ups = nn.ModuleList(up)
    self.final_conv = Block(now, 3, groups)

  def forward(self, x, level):
    emb = self.noise_level_mlp(level)
    skips = []
    for layer in self.downs:
      x = layer(x, emb) if isinstance(layer, Stage) else layer(x)
      skips.append(x)
    for layer in self.mid:
      x = layer(x, emb)
    for layer in self.ups:
      if isinstance(layer, Stage):
        x = layer(torch.cat([x, skips.pop()], dim=1), emb)
      else:
        x = layer(x)
    return self.final_conv(x)
