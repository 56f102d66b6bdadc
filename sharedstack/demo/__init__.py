"""`make demo`: unmodified redis on the kernel and through sharedstack, side by side, with the proof.

`python -m sharedstack.demo` starts a helper on a stack of its own, runs server and load generator in turn on both sides (`rounds`),
and prints medians (`report`). Where redis is missing, a small server and client of the package's own stand in (`echo`).
"""
