"""The command line, from a checkout: `python cli.py sample --ap ap.png -o ct.nii.gz`."""

from x2ct.cli import main

if __name__ == "__main__":
    main()
