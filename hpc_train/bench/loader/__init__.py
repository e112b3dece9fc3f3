"""How fast samples of a user's own data come: this system, plain h5py, PyTorch, the machine."""
