"""Faults put onto a real stack, one after another, and what must hold all the same: `inv test --chaos`."""
