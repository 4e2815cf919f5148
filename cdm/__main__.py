"""`python -m cdm` is `cdm`."""

from cdm.cli.main import main

if __name__ == '__main__':
  raise SystemExit(main())
