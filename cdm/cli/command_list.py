"""Lists the commands, each in a line, and examples of how to call them."""

COMMANDS = {
  'train': 'train one stage, or resume its training',
  'distill': 'train students that draw in 4, 2 or 1 steps',
  'sample': 'draw images from a cascade of trained stages',
  'upscale': 'super-resolve images with a trained stage',
  'evaluate': 'judge images: FID etc. of sets, PSNR, SSIM etc. of pairs',
  'cas': 'train ResNet-50 on samples and test it on real images',
  'accuracy': "measure ResNet-50's error on images or on a stage's output",
  'sweep': 'judge samples under several settings and name the best',
  'robustness': 'examine a stage: degraded inputs, groups, uncertainty',
  'compare': 'compare methods of super-resolution on the same images',
  'serve': 'enlarge pictures, or draw from a cascade, in a browser',
  'study': 'ask people: which picture was taken by a camera?',
  'ema': 'list snapshots of averages, and make averages of any width',
  'import': 'write a work directory from published weights',
  'export': 'write a trained stage into one file',
  'prepare': 'decode, crop and resize a data set once, into shards',
  'describe': 'print parameters, FLOPs, sizes and paper numbers of a config',
  'plan': 'predict memory, time and cost on a slice of TPUs',
  'report': 'put runs, images and numbers on one HTML page',
}

EPILOG = """\
examples:
  cdm train --config=configs/photos8.py --workdir=runs/photos/base
  cdm train --config=configs/photos8.py --workdir=runs/photos/base \\
      --config.train.batch_size=32
  cdm sample --config=configs/photos_cascade32.py --workdir=runs/photos \\
      --num=64 --seed=0 --out=runs/photos/samples
  cdm describe --config=configs/cdm_cascade256.py

configs/ and launch/ are folders of cdm's repository, not of the package.
Every value of a config can be set with --config.SECTION.KEY=VALUE.
`cdm COMMAND --help` explains one command.
"""
