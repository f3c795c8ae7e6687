"""How much memory a bundle will take on its target: predicted from shapes, before anything slow is done.

`plan` says what a prediction is; `whisper_onnx`, `whisper_litert`, `causal_onnx`, `causal_litert` and `causal_gguf`
make one for a model in a format, `browser` one for a page, over what they share (`whisper_audio`, `causal_matrices`,
`matrices`, `xnnpack`, `tokenizer`); `planning` chooses; `measured` holds the constants, fitted to what
`benchmarks/memory.py` and `browser_memory.py` measured; `fit` decides whether it fits.
"""
