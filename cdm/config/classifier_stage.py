"""Builds a stage whose method is an image classifier."""

from ml_collections import ConfigDict

from cdm.config import built_stage, instantiate, key_errors, sampler_section
from cdm.methods import classification
from cdm.models import resnet


def classifier_stage(
  c: ConfigDict, chosen: sampler_section.Chosen
) -> built_stage.Stage:
  """Builds the Stage of a config whose method.kind is 'classifier'.

  Args:
    c: ConfigDict of the stage.
    chosen: of no use, as a classifier draws nothing.
  """
  del chosen
  image_size = built_stage.image_size(c)
  section = dict(c.method)
  del section['kind']
  options = instantiate.splat(
    'method', classification.ClassifierOptions, section
  )
  # With momentum 0 the network returns the batch-norm statistics of the current
  # batch alone, not a running average.
  net = instantiate.splat('model', resnet.ResNet50, c.model, momentum=0.0)
  with key_errors.naming('model', c.model):
    resnet.check(net)
  method, tester = classification.classifier(
    net,
    options,
    image_size=image_size,
    normalise=resnet.normalise,
  )
  return built_stage.Stage(
    c,
    net,
    options,
    method,
    summary={
      'method': 'classifier',
      'images': f'{image_size} px',
      'random crops': (
        f'area {options.crop_scale}, aspect {options.crop_ratio}'
      ),
      'flips': options.flip,
      'label smoothing': options.label_smoothing,
      'batches of the statistics': options.statistics_batches,
    },
    input_size=options.size,
    is_sum=False,  # A classifier normalises over the batch.
    tester=tester,
  )
