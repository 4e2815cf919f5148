"""Tiny videos, made by PyAV; tests that need them are skipped without it."""

from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip('av', reason='PyAV, of the extra video, is missing')

# Ticks of 1/600 s, not evenly spaced.
STAMPS = (0, 24, 48, 100, 124, 148, 172, 300)
TICK = Fraction(1, 600)


def moving(height=48, width=64, count=8):
  """-> smooth frames whose waves move, uint8 [N, H, W, 3]."""
  y, x = np.mgrid[:height, :width]
  frames = [
    np.stack(
      [np.sin((x + 3 * n) / 9 + c) * np.cos(y / 7) for c in range(3)], -1
    )
    for n in range(count)
  ]
  return (128 + 90 * np.stack(frames)).astype(np.uint8)


def write(
  path,
  frames,
  *,
  codec='ffv1',
  pixels='yuv420p',
  stamps=None,
  tick=TICK,
  colours=None,
  sound=None,
  rotation=None,
  title=None,
  chapters=None,
  interlaced=False,
  options=None,
):
  """Writes frames uint8 [N, H, W, 3]; colours are PyAV's attributes."""
  stamps = range(0, 24 * len(frames), 24) if stamps is None else stamps
  with av.open(str(path), 'w') as file:
    video = file.add_stream(codec, rate=25, options=options or {})
    video.height, video.width = frames.shape[1:3]
    video.pix_fmt = pixels
    video.time_base = video.codec_context.time_base = tick
    video.codec_context.max_b_frames = 0
    for name, value in (colours or {}).items():
      setattr(video.codec_context, name, value)
    if interlaced:
      video.codec_context.field_order = 2
    if rotation is not None:
      video.set_display_rotation(rotation)
    audio = None
    if sound is not None:
      audio = file.add_stream(sound, rate=48000)
      audio.metadata['language'] = 'ger'
    if title is not None:
      file.metadata['title'] = title
    if chapters is not None:
      file.set_chapters(chapters)
    for pts, image in zip(stamps, frames, strict=True):
      frame = av.VideoFrame.from_ndarray(image, 'rgb24').reformat(format=pixels)
      frame.pts, frame.time_base, frame.pict_type = pts, tick, 0
      for name, value in (colours or {}).items():
        setattr(frame, name, value)
      file.mux(video.encode(frame))
    file.mux(video.encode())
    if audio is not None:
      _tone(file, audio)
  return path


def _tone(file, audio):
  rng = np.random.default_rng(0)
  layout = audio.codec_context.format.name
  for i in range(20):
    samples = rng.standard_normal((2, 1024)) * 0.1
    if layout == 's16':
      samples = (samples * 2**15).astype(np.int16).T.reshape(1, -1)
    else:
      samples = samples.astype(np.float32)
    frame = av.AudioFrame.from_ndarray(samples, layout, 'stereo')
    frame.sample_rate, frame.pts = 48000, 1024 * i
    frame.time_base = Fraction(1, 48000)
    file.mux(audio.encode(frame))
  file.mux(audio.encode())


def packets(path, kind):
  """-> [(time, bytes)] of all packets of the first stream of a kind."""
  with av.open(str(path)) as file:
    stream = next(s for s in file.streams if s.type == kind)
    return [
      (p.pts * p.time_base, bytes(p)) for p in file.demux(stream) if p.size
    ]


def times(path):
  """-> the times of all frames, as fractions of a second."""
  with av.open(str(path)) as file:
    return [f.pts * f.time_base for f in file.decode(video=0)]


def decoded(path):
  """-> all frames as FFmpeg shows them, uint8 [N, H, W, 3]."""
  with av.open(str(path)) as file:
    return np.stack(
      [f.to_ndarray(format='rgb24') for f in file.decode(video=0)]
    )
