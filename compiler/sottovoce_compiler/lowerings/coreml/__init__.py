"""Models as Core ML packages, `.mlpackage`.

In the order in which data meets them: `speech_lowering` and `causal_lowering` are what the compiler calls; `conversion`
writes the weights to a file and runs `worker` as a process of its own; there `whisper` and `causal` build MIL programs
through `program`, with matrices stored as `weights` says; `package` makes the folder. `evaluator` reads a package and
computes what it computes, on any machine.

coremltools is imported in the worker and, for the classes of its file format, in the evaluator.
"""
