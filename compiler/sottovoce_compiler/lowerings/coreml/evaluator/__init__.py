"""Computes what a Core ML package computes, on any machine: its saved program, read and run operation by operation.

`reading` parses a package into the small types of `program`; `blobs` reads its weights; `ops` has what each operation
does, one file a kind; `running` runs a function. Values that the program holds in float16 are rounded to float16 after
every operation and computed in float32 within it. That shows what the conversion does, overflow included; it does not
show how Apple's kernels round within an operation.
"""
