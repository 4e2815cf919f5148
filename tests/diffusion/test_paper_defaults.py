"""A caller who names no option gets what the papers use."""

import inspect

import pytest

from cdm.diffusion import (
  cosine_logsnr,
  dpm_solvers,
  guidance,
  losses,
  noise_levels,
  preconditioning,
  samplers,
  schedules,
  weightings,
)


@pytest.mark.parametrize(
  ('function', 'expected'),
  [
    (schedules.cosine, dict(offset=0.008, max_beta=0.999)),  # [IDDPM]
    (losses.simple, dict(target='eps', norm=2, weight=None)),  # [DDPM]
    # [IDDPM]; its class-conditional runs do not rescale.
    (losses.hybrid, dict(target='eps', vb_weight=0.001, rescale=False)),
    (weightings.min_snr, dict(cap=5.0)),
    (weightings.truncated_snr, dict(floor=1.0)),  # [PD]
    (weightings.sigmoid, dict(bias=0.0)),  # [VDM++]
    (weightings.edm, dict(sigma_data=0.5)),  # [EDM]
    (preconditioning.Edm, dict(sigma_data=0.5)),  # [EDM]
    (noise_levels.LogNormal, dict(mean=-1.2, std=1.2)),  # [EDM]
    (weightings.p2, dict(k=1.0, gamma=1.0)),  # [P2]
    (weightings.sigmoid_integral, dict(bias=0.0)),  # [VDM++]
    (losses.multiscale, dict(target='eps', weight=None)),  # [SiD]
    (
      cosine_logsnr.shifted_cosine,
      dict(logsnr_min=-15.0, logsnr_max=15.0),  # [SiD]'s code
    ),
    (guidance.clip_x_0, dict(low=-1.0, high=1.0, keep_eps=False)),
    (
      guidance.dynamic_threshold,
      dict(percentile=99.5, low=-1.0, high=1.0),  # [Imagen]
    ),
    (guidance.classifier_free, dict(interval=None, rescale=0.0, both=None)),
    (guidance.autoguidance, dict(interval=None, rescale=0.0)),
    (samplers.ancestral, dict(variance='beta')),  # [SR3]
    (samplers.ddim, dict(noise=None, eta=0.0)),
    (dpm_solvers.dpm_solver_pp_2m, dict(noise=None, last_order=2, eta=0.0)),
  ],
  ids=lambda given: getattr(given, '__name__', ''),
)
def test_options_that_are_not_named_are_those_of_the_paper(function, expected):
  found = {
    name: parameter.default
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.default is not parameter.empty
  }
  assert found == expected
