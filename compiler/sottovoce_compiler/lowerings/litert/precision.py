"""The precisions of LiteRT bundles by name. Imports nothing large."""

LITERT_PRECISIONS = ("int8", "int4", "fp16", "fp32")
