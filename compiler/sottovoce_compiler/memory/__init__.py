"""How much memory a bundle will take on its target: predicted from shapes, before anything slow is done.

`plan` says what a prediction is; `whisper_onnx`, `causal_onnx` and `causal_gguf` make one for a model in a format;
`measured` holds the constants, fitted to what `benchmarks/memory.py` measured; `fit` decides whether it fits.
"""
