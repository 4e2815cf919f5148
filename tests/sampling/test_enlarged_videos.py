"""Videos become larger, with all that is in them, and nothing flickers."""

import dataclasses
import os
import shutil
import sys
import types
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from support import canvas_stages, clips, smoke_runs

from cdm.data.videos import video_segments, video_source
from cdm.sampling import (
  enlarged_inputs,
  enlarged_videos,
  exported_stage,
  named_upscaler,
  video_jobs,
)
from cdm.sampling import upscaler as sampling_upscaler
from cdm.sampling.enlarged_jobs import Settings
from cdm.sampling.enlarged_size import Asked
from cdm.sampling.video_jobs import Options

HIGH, WIDE = 48, 64
VIDEO = Options()
BT_601 = dict(color_range=1, color_primaries=6, color_trc=6, colorspace=6)


@pytest.fixture(scope='module')
def upscaler():
  """-> magnifies any frame twice, with windows of 128 px."""
  stage = canvas_stages.stage(size=128, margin=0)
  return sampling_upscaler.stage_upscaler(stage, None, batch_size=2)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
  monkeypatch.setattr(video_segments, 'FRAMES', 3)


def enlarge(upscaler, given, out, options=VIDEO, **settings):
  inputs = enlarged_inputs.check([given], out, scale=2.0)
  enlarged_videos.write_enlarged_videos(
    upscaler, inputs, Settings(**settings), options
  )


def planned(upscaler, path, out):
  (given,) = enlarged_inputs.check([path], out, scale=2.0).videos
  jobs, errors = video_jobs.jobs_of(
    upscaler.canvas, None, [given], Settings(), Options()
  )
  assert not errors
  return video_jobs.plans_of(upscaler.canvas, jobs)[0]


def blocks(frames, side):
  """-> the means of squares, [N, h, w, 3]."""
  count, height, width, _ = frames.shape
  cut = (count, height // side, side, width // side, side, 3)
  return frames.reshape(cut).mean(axis=(2, 4))


def test_a_still_clip_does_not_flicker(upscaler, tmp_path):
  """Noise is of the pixel: equal frames become equal frames, bit for bit."""
  still = np.repeat(canvas_stages.photo(HIGH, WIDE), 5, axis=0)
  path = clips.write(tmp_path / 'still.mkv', still)
  plan = planned(upscaler, path, tmp_path / 'out.mkv')
  frames = np.stack([f.rgb for f in video_source.frames(path, plan.job.look)])
  assert plan.together == 2 and np.ptp(frames, axis=0).max() == 0
  drawn = [
    np.concatenate(list(enlarged_videos.bands(plan, Settings(), part)), axis=1)
    for part in (frames[:2], frames[2:4], frames[4:])
  ]
  drawn = np.concatenate(drawn)
  assert drawn.shape == (5, 2 * HIGH, 2 * WIDE, 3)
  assert drawn.std() > 0.2 and np.ptp(drawn, axis=0).max() == 0
  job = dataclasses.replace(plan.job, number=plan.job.number + 1)
  other, *_ = enlarged_videos.bands(
    plan._replace(job=job), Settings(), frames[:1]
  )
  noise = 127.5 * np.abs(other - drawn[:1, : other.shape[1]]).mean()
  enlarge(upscaler, path, tmp_path / 'out.mkv')
  shown = clips.decoded(tmp_path / 'out.mkv').astype(int)
  assert np.abs(np.diff(shown, axis=0)).mean() < 2.5 < 8 < noise


def test_everything_in_the_file_stays(upscaler, tmp_path, capsys):
  """Time stamps and sound exactly; colours, turn, chapters and metadata."""
  chapters = [
    dict(id=n, start=250 * n, end=250 * n + 250, time_base=Fraction(1, 1000),
         metadata={'title': name})
    for n, name in enumerate(['one', 'two'])
  ]  # fmt: skip
  given = clips.write(
    tmp_path / 'clip.mp4', clips.moving(), codec='libx264', sound='aac',
    stamps=clips.STAMPS, colours=BT_601, rotation=90, title='Holiday',
    chapters=chapters, options={'crf': '5'},
  )  # fmt: skip
  out = tmp_path / 'out'
  enlarge(upscaler, given, out, back_projections=1)
  made = out / 'clip.mp4'
  assert os.listdir(out) == ['clip.mp4']
  assert clips.times(made) == clips.times(given)
  assert clips.times(made) == [s * clips.TICK for s in clips.STAMPS]
  assert clips.packets(made, 'audio') == clips.packets(given, 'audio')
  with clips.av.open(str(made)) as file:
    video, audio = file.streams.video[0], file.streams.audio[0]
    context = video.codec_context
    assert (context.name, context.pix_fmt) == ('h264', 'yuv420p')
    assert {k: getattr(context, k) for k in BT_601} == BT_601
    assert audio.metadata['language'] == 'ger'
    assert file.metadata['title'] == 'Holiday'
    assert file.metadata['comment'].startswith('cdm ')
    assert [c['metadata']['title'] for c in file.chapters()] == ['one', 'two']
    frame = next(file.decode(video))
    assert frame.rotation == 0
    assert (frame.height, frame.width) == (2 * WIDE, 2 * HIGH)
  # FFmpeg's meaning of a turn by 90 degrees is to the left, and its colours
  # are those of the original, but for what the network draws.
  shown = blocks(clips.decoded(made), 8)
  left, right = (
    blocks(np.rot90(clips.moving(), k, axes=(1, 2)), 4) for k in (1, 3)
  )
  assert np.abs(shown - left).mean() < 4 < 30 < np.abs(shown - right).mean()
  told = capsys.readouterr().out
  assert f'8 frames, 0.5 s, {HIGH}x{WIDE} -> {2 * HIGH}x{2 * WIDE}' in told
  assert 'its frames are turned as they are displayed' in told
  enlarge(upscaler, given, out, back_projections=1)  # is there already
  with pytest.raises(ValueError, match=r'clip\.mp4 would be overwritten'):
    enlarge(upscaler, given, out, seed=1)


def test_an_interrupted_run_goes_on_to_the_same_bytes(
  upscaler, tmp_path, monkeypatch, capsys
):
  given = clips.write(tmp_path / 'clip.mkv', clips.moving(), sound='flac')
  whole, again = tmp_path / 'whole.mkv', tmp_path / 'again.mkv'
  enlarge(upscaler, given, whole)
  drawn, bands = [], enlarged_videos.bands

  def counted(plan, settings, frames):
    if len(drawn) == 5 and not (again.parent / 'on').exists():
      raise KeyboardInterrupt
    drawn.extend(frames)
    return bands(plan, settings, frames)

  monkeypatch.setattr(enlarged_videos, 'bands', counted)
  with pytest.raises(KeyboardInterrupt):
    enlarge(upscaler, given, again)
  assert not again.exists()
  folder = video_segments.folder_of(again)
  (segment,) = folder.glob('*')
  before = segment.stat().st_mtime_ns
  (tmp_path / 'on').touch()
  join = enlarged_videos.joined_video.join

  def look(segments, *rest, **options):
    assert segments[0].stat().st_mtime_ns == before
    join(segments, *rest, **options)

  monkeypatch.setattr(enlarged_videos.joined_video, 'join', look)
  drawn.clear()
  enlarge(upscaler, given, again)
  assert len(drawn) == 5  # three of eight were finished
  assert again.read_bytes() == whole.read_bytes()
  assert not folder.exists()
  assert 'again.mkv: 3 frames are there already' in capsys.readouterr().out
  assert clips.packets(again, 'audio') == clips.packets(given, 'audio')


@pytest.mark.parametrize(
  'suffix, pixels, options, expected',
  [
    ('.mp4', 'yuv420p10le', Options(), ('hevc', 'yuv420p10le')),
    ('.webm', 'yuv444p', Options(crf=10), ('vp9', 'yuv420p')),
    ('.mkv', 'gray', Options(codec='av1'), ('libdav1d', 'yuv420p')),
  ],
)
def test_codecs_and_bits(upscaler, tmp_path, suffix, pixels, options, expected):
  """HEVC, VP9 and AV1 show the same picture, and 10 bits stay 10."""
  given = clips.write(
    tmp_path / 'a.mkv', clips.moving(HIGH, WIDE - 1)[:4], pixels=pixels,
    colours=BT_601,
  )  # fmt: skip
  out = tmp_path / f'b{suffix}'
  enlarge(upscaler, given, out, options, asked=Asked(width=WIDE + 3))
  with clips.av.open(str(out)) as file:
    context = file.streams.video[0].codec_context
    assert (context.name, context.pix_fmt) == expected
    assert context.codec_tag == 'hvc1' or context.name != 'hevc'
    assert (context.height, context.width) == (50, 66)  # even
    assert {k: getattr(context, k) for k in BT_601} == BT_601
  frames = clips.decoded(out).astype(int)
  assert len(frames) == 4
  original = clips.decoded(given).astype(int)
  assert abs(frames.mean() - original.mean()) < 3
  if pixels == 'gray':
    # AV1 keeps chroma to a level, which is two of blue.
    assert np.ptp(frames, axis=-1).max() <= 4


def test_interlaced_frames_become_whole(upscaler, tmp_path, capsys):
  frames = clips.moving(count=6)
  given = clips.write(
    tmp_path / 'a.mkv', frames, codec='libx264', interlaced=True,
    title='Holiday',
    options={'x264-params': 'tff=1', 'flags': '+ildct'},
  )  # fmt: skip
  look = video_source.look(given)
  assert look.is_interlaced
  found = list(video_source.frames(given, look))
  assert [f.pts for f in found] == [40 * n for n in range(6)]
  enlarge(upscaler, given, tmp_path / 'b.mkv', strip=True)
  with clips.av.open(str(tmp_path / 'b.mkv')) as file:
    assert 'title' not in file.metadata
  assert clips.times(tmp_path / 'b.mkv') == clips.times(given)
  assert 'it is interlaced: fields become whole' in capsys.readouterr().out


def test_what_cannot_be_enlarged_is_named(upscaler, tmp_path, monkeypatch):
  frames, out = clips.moving()[:2], tmp_path / 'out.mkv'
  hlg = clips.write(
    tmp_path / 'hlg.mkv', frames, pixels='yuv420p10le',
    colours=dict(color_trc=18, color_primaries=9, colorspace=9),
  )  # fmt: skip
  with pytest.raises(ValueError, match=r'hlg\.mkv: .*high dynamic range \(HLG'):
    enlarge(upscaler, hlg, out)
  damaged = tmp_path / 'cut.mkv'
  damaged.write_bytes(hlg.read_bytes()[:200])
  with pytest.raises(ValueError, match=r'cut\.mkv: '):
    enlarge(upscaler, damaged, out)
  sound = clips.write(tmp_path / 'a.mkv', frames, sound='flac')
  with pytest.raises(ValueError, match=r'sound \(flac\) .* WebM .*write \.mkv'):
    enlarge(upscaler, sound, tmp_path / 'a.webm')
  with pytest.raises(ValueError, match=r'a\.png: a video stays a video'):
    enlarge(upscaler, sound, tmp_path / 'a.png')
  with pytest.raises(ValueError, match='--crf=60: h264 takes 0 to 51'):
    enlarge(upscaler, sound, out, Options(crf=60))
  monkeypatch.setitem(sys.modules, 'av', None)
  with pytest.raises(ValueError, match=r'a\.mkv: .*install.*cdm\[video\]'):
    enlarge(upscaler, sound, out)
  assert not out.exists() and not video_segments.folder_of(out).exists()


def test_a_full_disk_ends_the_run_and_keeps_what_is_finished(
  upscaler, tmp_path, monkeypatch
):
  given = clips.write(tmp_path / 'a.mkv', clips.moving())
  out, free = tmp_path / 'b.mkv', [0, 10**9, 0]

  def disk_usage(path):
    return types.SimpleNamespace(free=free.pop(0))

  monkeypatch.setattr(shutil, 'disk_usage', disk_usage)
  with pytest.raises(
    ValueError, match=r'a\.mkv: .* bytes, and the disk of .* 0'
  ):
    enlarge(upscaler, given, out)
  with pytest.raises(OSError, match='goes on after the 3 frames'):
    enlarge(upscaler, given, out)
  assert free == [] and not out.exists()
  folder = video_segments.folder_of(out)
  assert [path.suffix for path in folder.iterdir()] == ['.nut']


def test_the_command_takes_folders_of_pictures_and_videos(
  upscaler, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(named_upscaler, 'canvas_factor', lambda *given: 2)
  monkeypatch.setattr(
    named_upscaler, 'opened', lambda *given, **options: (upscaler, None)
  )
  monkeypatch.setattr(exported_stage, 'classes', lambda path: None)
  folder, out = tmp_path / 'in', tmp_path / 'out'
  (folder / 'deep').mkdir(parents=True)
  Image.fromarray(clips.moving()[0]).save(folder / 'a.png')
  clips.write(folder / 'deep' / 'a.avi', clips.moving()[:2], codec='ffv1',
              tick=1 / Fraction(25), stamps=[0, 1])  # fmt: skip
  words = ['upscale', '--workdir=x', folder, f'--out={out}']
  assert smoke_runs.cdm(*words, '--crf=30') == 0
  assert (out / 'a.png').is_file() and os.listdir(out / 'deep') == ['a.mkv']
  with clips.av.open(str(out / 'deep' / 'a.mkv')) as file:
    assert file.streams.video[0].codec_context.name == 'h264'
  assert smoke_runs.cdm(*words[:2], folder / 'a.png', '--codec=av1') == 2
  assert '--codec=av1: no file is a video' in capsys.readouterr().err
  video = folder / 'deep' / 'a.avi'
  assert smoke_runs.cdm(*words[:2], video, '--quality=90') == 2
  assert 'videos have --codec and --crf' in capsys.readouterr().err
