"""How fast gradients are summed: every collective, MPI's own, gloo, and what the machine allows."""
