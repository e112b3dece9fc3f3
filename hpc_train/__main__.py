"""`python -m hpc_train`: the command line."""

from hpc_train.cli import main

if __name__ == "__main__":
    main()
