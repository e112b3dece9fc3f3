"""The schedule benchmark: every policy on the same ranks, beside the ideal; nothing is started."""
