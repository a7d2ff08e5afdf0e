"""`python -m cmarr_lightning` is `cmarr`."""

from cmarr_lightning.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
