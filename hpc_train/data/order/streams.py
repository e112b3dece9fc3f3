"""The Philox streams of the order: what each family of random bits is for."""

BLOCKS = 1  # the permutation of blocks, per epoch
ROWS = 2  # the order of the rows of a block, per epoch and block
OFFSET = 3  # where the golden-ratio sequence of a window begins, per epoch and window
FULL = 4  # the permutation of samples, per epoch
PARTNERS = 5  # the partners of a batch, with which samples are mixed
DRAWS = 6  # the order within its block in which a sample is drawn by weight, per epoch
COMB = 7  # the shift of the comb that draws, per epoch
