"""The recipe of the public PyTorch SR3: trains its network, draws with it.

  T = 2000 steps of beta from 1e-6 to 1e-2, linear
  one t for the whole batch; sqrt(gamma) ~ U between those of t and t - 1
  loss |eps - f(x, y_t, sqrt(gamma))|, mean over all numbers
  Adam 1e-4 without warm-up, no EMA, batch 4, random flips, orthogonal weights
  ancestral sampling in 2000 steps, x_0 clipped, posterior variance

The numbers are those of its config for 16 to 128 pixels. It is a program of its
own, because PyTorch and JAX do not share the memory of a GPU.

  peer_training.py --train=IMAGES.npz --held_out=INPUTS.npz --out=DRAWN.npz
      --minutes=3.5

INPUTS.npz has the low-res images, uint8 [N, h, w, 3]; DRAWN.npz gets the
results of the same number. The last line printed is a JSON object of figures.
"""

import argparse
import json
import pathlib
import sys
import time

import numpy as np
import torch
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gpu import peer_network  # noqa: E402

NUM_STEPS, BETAS = 2000, (1e-6, 1e-2)
LEARNING_RATE, BATCH = 1e-4, 4
# {field: value} of a network for a test.
SMOKE_NETWORK = dict(
  features=8, multipliers=(1, 2), num_blocks=1, attention_sizes=(), groups=4
)
SMOKE_STEPS = 2


class Levels:
  """The noise levels of T steps, and the coefficients of the reverse chain.

  Attributes:
    sqrt_gamma: float64 [T + 1], from 1 down.
  """

  def __init__(self, num_steps=NUM_STEPS):
    betas = np.linspace(*BETAS, num_steps)
    alphas = 1 - betas
    gamma = np.cumprod(alphas)
    before = np.append(1.0, gamma[:-1])
    self.sqrt_gamma = np.sqrt(np.append(1.0, gamma))
    self.posterior = betas * (1 - before) / (1 - gamma)
    self.on_x_0 = betas * np.sqrt(before) / (1 - gamma)
    self.on_x_t = (1 - before) * np.sqrt(alphas) / (1 - gamma)
    self.gamma = gamma

  def draw(self, rng, count):
    """Returns float32 [count] levels of one step, as training draws them."""
    t = rng.integers(1, len(self.gamma) + 1)
    low, high = sorted((self.sqrt_gamma[t - 1], self.sqrt_gamma[t]))
    return rng.uniform(low, high, count).astype(np.float32)


def main(argv=None):
  """Trains for some minutes, draws, and prints the figures."""
  args = parse(argv)
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  torch.manual_seed(0)
  rng = np.random.default_rng(0)
  images = np.load(args.train)['arr_0']
  size = images.shape[1]
  fields = SMOKE_NETWORK if args.smoke else {}
  network = peer_network.PeerUNet(image_size=size, **fields).to(device)
  initialize(network)
  levels = Levels(8 if args.smoke else NUM_STEPS)
  seconds = 60 * args.minutes
  figures = train(network, images, levels, rng, seconds, args, device)
  lowres = np.load(args.held_out)['arr_0']
  began = time.monotonic()
  drawn = draw(
    network, upsampled(lowres, size), levels, args.draw_batch, device
  )
  np.savez(args.out, arr_0=drawn)
  peak = torch.cuda.max_memory_allocated() if device == 'cuda' else None
  figures |= {
    'parameters': sum(p.numel() for p in network.parameters()),
    'sampling_steps': len(levels.gamma),
    'seconds_per_image': (time.monotonic() - began) / len(lowres),
    'peak_bytes': peak,
    'torch': torch.__version__,
    'tf32_convolutions': torch.backends.cudnn.allow_tf32,
    'tf32_products': torch.backends.cuda.matmul.allow_tf32,
  }
  print(json.dumps(figures), flush=True)


def parse(argv):
  """Returns the arguments."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  for name in ('--train', '--held_out', '--out'):
    parser.add_argument(name, required=True, type=pathlib.Path)
  parser.add_argument('--minutes', type=float, required=True)
  parser.add_argument('--batch_size', type=int, default=BATCH)
  parser.add_argument('--draw_batch', type=int, default=64)
  parser.add_argument(
    '--bfloat16', action='store_true', help='autocast, unlike the recipe'
  )
  parser.add_argument('--smoke', action='store_true')
  return parser.parse_args(argv)


def initialize(network):
  """Gives weights orthogonal rows and biases zeros, as the recipe does."""
  for module in network.modules():
    if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
      torch.nn.init.orthogonal_(module.weight)
      if module.bias is not None:
        torch.nn.init.zeros_(module.bias)


def train(network, images, levels, rng, seconds, args, device):
  """Trains for so many seconds; -> {figure: value}."""
  optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
  network.train()
  began, steps, losses = time.monotonic(), 0, []
  while time.monotonic() - began < seconds:
    batch = images[rng.integers(0, len(images), args.batch_size)]
    flipped = rng.random(len(batch)) < 0.5
    batch = np.where(flipped[:, None, None, None], batch[:, :, ::-1], batch)
    condition = upsampled(shrunk(batch), batch.shape[1])
    level = levels.draw(rng, len(batch))
    loss = objective(
      network,
      *(to_tensor(x, device) for x in (batch, condition)),
      torch.from_numpy(level).to(device),
      args.bfloat16,
    )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    steps += 1
    if steps % 100 == 1:  # reading a loss waits for the GPU
      losses.append(float(loss.detach()))
    if args.smoke and steps == SMOKE_STEPS:
      break
  spent = time.monotonic() - began
  return {
    'training_seconds': spent,
    'steps': steps,
    'batch_size': args.batch_size,
    'images_per_second': steps * args.batch_size / spent,
    'loss': losses[-1],
    'bfloat16': args.bfloat16,
  }


def objective(network, x_0, condition, level, bfloat16=False):
  """Returns the loss of a batch, [B, 3, H, W] images and [B] levels."""
  eps = torch.randn_like(x_0)
  scale = level.reshape(-1, 1, 1, 1)
  x_t = scale * x_0 + torch.sqrt(1 - scale**2) * eps
  with torch.autocast(x_0.device.type, torch.bfloat16, enabled=bfloat16):
    eps_hat = network(torch.cat([condition, x_t], dim=1), level)
  return (eps - eps_hat.float()).abs().mean()


@torch.no_grad()
def draw(network, conditions, levels, batch, device):
  """Draws an image for each upsampled low-res image; uint8 [N, H, W, 3]."""
  network.eval()
  generator = torch.Generator(device).manual_seed(1)
  drawn = []
  for start in range(0, len(conditions), batch):
    condition = to_tensor(conditions[start : start + batch], device)
    shape = condition.shape
    x = torch.randn(shape, generator=generator, device=device)
    for t in reversed(range(len(levels.gamma))):
      gamma = float(levels.gamma[t])
      level = torch.full((shape[0],), float(levels.sqrt_gamma[t + 1]))
      eps = network(torch.cat([condition, x], dim=1), level.to(device))
      x_0 = (x - (1 - gamma) ** 0.5 * eps) / gamma**0.5
      x_0 = x_0.clamp(-1, 1)
      x = float(levels.on_x_0[t]) * x_0 + float(levels.on_x_t[t]) * x
      if t:
        noise = torch.randn(shape, generator=generator, device=device)
        x = x + float(levels.posterior[t]) ** 0.5 * noise
    drawn.append(to_uint8(x))
  return np.concatenate(drawn)


def to_tensor(images, device):
  """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1]."""
  x = torch.from_numpy(np.ascontiguousarray(images)).to(device)
  return x.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(x):
  """float32 [N, 3, H, W] -> uint8 [N, H, W, 3], rounded and clipped."""
  x = (x.clamp(-1, 1) + 1) * 127.5
  return x.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def shrunk(images, factor=8):
  """Shrinks uint8 images by Pillow's bicubic filter."""
  size = images.shape[1] // factor
  return resized(images, size)


def upsampled(images, size):
  """Enlarges uint8 images by Pillow's bicubic filter."""
  return resized(images, size)


def resized(images, size):
  """Resizes uint8 [N, H, W, 3] by Pillow's bicubic filter."""
  kind = Image.Resampling.BICUBIC
  pictures = [Image.fromarray(x).resize((size, size), kind) for x in images]
  return np.stack([np.asarray(picture) for picture in pictures])


if __name__ == '__main__':
  main()
