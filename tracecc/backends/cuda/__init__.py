"""The CUDA backend: the schedule's kernels as CUDA text, checked and compiled without a GPU."""
