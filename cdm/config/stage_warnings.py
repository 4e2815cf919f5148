"""Warns of settings of a stage that are allowed but cannot work well.

`cdm train`, `cdm describe` and `cdm plan` print every warning of a stage; the
commands that draw images print those about the sampler.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cdm.config import sampler_warnings
from cdm.config.built_stage import Stage
from cdm.config.sampler_warnings import alpha_bar
from cdm.diffusion import noise_levels, schedules
from cdm.diffusion.process import alpha_sigma
from cdm.methods import lowres_conditioning
from cdm.methods.fsrgan import FsrganOptions
from cdm.models import lpips, unet_plan
from cdm.models.unet import UNet
from cdm.ops import resize

# Below this alpha_bar, what is left of an image is weaker than its last bits.
# Stable Diffusion ends at 0.0047, which is known to limit how dark or bright
# its images can be; training is warned of from twice that on.
_END_WITHOUT_IMAGE = 1e-2
# A residual target may be spread so many times as widely as a schedule assumes.
_WIDEST_RESIDUAL = 3.0
# All levels that are clipped to the ends of a schedule are one of two levels.
_MOST_CLIPPED = 0.01
# Attention over 64 x 64 pixels has 17 million weights for each head, and over
# 128 x 128 sixteen times as many. No config of cdm exceeds 32 x 32.
_MOST_ATTENDED_PIXELS = 64 * 64


def stage_warnings(
  built: Stage,
  sampler: ConfigDict | Mapping[str, Any] | None = None,
  *,
  sampler_key: str = 'sampler',
) -> list[str]:
  """Returns a sentence or two for each setting that cannot work well.

  Args:
    built: a stage; there are warnings about a U-Net, its noise, and a
      perceptual loss.
    sampler: a `sampler` section that replaces the one in its config, or None.
    sampler_key: dotted name of `sampler`, for the text.
  """
  found = []
  if built.schedule is not None:
    found += [
      schedule_end(built.schedule),
      *sampler_warnings.of_stage(built, sampler, sampler_key=sampler_key),
      wide_residual(built),
      clipped_levels(built),
    ]
  if isinstance(built.net, UNet):
    found += [narrow_patches(built), wide_attention(built)]
  if isinstance(built.objective, FsrganOptions):
    found.append(missing_features(built.objective))
  return [text for text in found if text]


def schedule_end(schedule: schedules.Schedule) -> str | None:
  """Warns if the noisiest level of training still shows the image.

  Sampling starts from noise alone, which the network then has never seen.
  """
  end = alpha_bar(float(schedule.logsnr[-1]))
  if end <= _END_WITHOUT_IMAGE:
    return None
  return (
    f'config.schedule ends at alpha_bar {end:.2g}: the noisiest images of '
    f'training still show {np.sqrt(end):.0%} of their contrast, but sampling '
    'starts from noise alone, which the network never sees. Let it end below '
    f'{_END_WITHOUT_IMAGE:g}, with more steps or larger betas.'
  )


def wide_residual(built: Stage) -> str | None:
  """Warns if augmentation spreads the residual target far beyond its scale.

  The noise of the low-res image is a part of the residual to it. Its share is
  known without any data, so this is the least that the spread can be.
  """
  lowres, scale = built.lowres, getattr(built.objective, 'residual_scale', None)
  if lowres is None or scale is None or lowres.augment != 'noise':
    return None
  level = lowres.max_level
  logsnr = lowres_conditioning.level_logsnr(level, lowres)
  weights = resize.resize_weights(
    lowres.size, built.config.pipeline.image_size, method=lowres.upsample
  )
  # The mean variance of enlarged white noise is the square of that of a row.
  gain = float(np.mean(np.sum(np.square(weights), axis=1)))
  spread = float(alpha_sigma(float(logsnr))[1]) * gain
  if spread <= _WIDEST_RESIDUAL * scale:
    return None
  return (
    f'config.method.residual_scale is {scale:g}, but at the largest level of '
    f'augmentation, {level:g}, the noise of the low-res image alone spreads '
    f'the residual by {spread:.2g}, {spread / scale:.0f} times as much, where '
    'the noise schedule expects unit variance. Use a smaller '
    '--config.lowres.max_level, or --config.method.residual_scale=None.'
  )


def clipped_levels(built: Stage) -> str | None:
  """Warns if many of the levels of training are clipped to the schedule's."""
  levels = getattr(built.objective, 'levels', None)
  if levels is None or built.schedule is None:
    return None
  share = noise_levels.share_beyond(levels, built.schedule)
  if share <= _MOST_CLIPPED:
    return None
  ends = -built.schedule.logsnr[[0, -1]] / 2
  return (
    f'{share:.1%} of the noise levels that config.method.levels draws lie '
    f'beyond those of config.schedule, ln(sigma / alpha) from {ends[0]:.3g} '
    f'to {ends[1]:.3g}, and are clipped to its ends. Give the schedule other '
    'ends, or the levels a smaller std.'
  )


def missing_features(options: FsrganOptions) -> str | None:
  """Warns if a perceptual loss is off because its features have no weights."""
  if not options.perceptual_weight or options.feature_weights:
    return None
  network = options.feature_network
  return (
    'The perceptual loss is off, because config.method.feature_weights is '
    f'empty. Fetch {lpips.BACKBONE_URLS[network]} and give its path with '
    '--config.method.feature_weights=PATH, or set '
    '--config.method.perceptual_weight=0.'
  )


def narrow_patches(built: Stage) -> str | None:
  """Warns if a patch has more values than the network has channels.

  The last convolution is linear. It cannot make more independent values of a
  patch than it receives channels, so a part of the noise cannot be predicted.
  """
  net = built.config.model
  if net.patch_size == 1:
    return None
  channels = int(net.multipliers[0] * net.features)
  values = built.channels * net.patch_size**2
  if values <= channels:
    return None
  return (
    f'config.model.patch_size is {net.patch_size}: the {values} values of a '
    f'patch pass through {channels} channels (features times the first '
    f'multiplier), so that {values - channels} of every {values} cannot be '
    f'predicted. Use a smaller patch, or --config.model.features='
    f'{int(np.ceil(values / net.multipliers[0]))} or more.'
  )


def wide_attention(built: Stage) -> str | None:
  """Warns if an attention compares so many pixels that it costs the most.

  The middle of the network always attends, at the coarsest feature map, which
  is large where the network has few levels.
  """
  side = built.config.pipeline.image_size
  levels = unet_plan.plan(built.net, (side, side))
  level = next((one for one in levels if one.num_heads), levels[-1])
  height, width = level.size
  pixels = height * width
  if pixels <= _MOST_ATTENDED_PIXELS:
    return None
  weights = pixels**2 * level.num_heads
  if level.attention:
    where = 'config.model.attention_resolutions has'
    remedy = f'Leave {max(level.size)} out of it.'
  else:
    where = 'The middle of the network, which always attends, is at'
    remedy = (
      'Give config.model.multipliers more levels, each of which halves that '
      'map, or use a larger config.model.patch_size.'
    )
  return (
    f'{where} {width} x {height}: each of {pixels:,} pixels attends to all of '
    f'them, which takes {weights / 1e6:,.0f} million weights for each image in '
    f'every attention. With config.model.attention=plain they are kept, '
    f'{4 * weights / 2**30:,.1f} GiB of float32. {remedy}'
  )
