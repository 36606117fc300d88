"""GPU kernels in Triton, forward and backward, beside readable references: one dispatch for all."""
