"""A benchmark of the whole stack beside others and beside the limit of this machine; docs/benchmark.md says how to read it."""
