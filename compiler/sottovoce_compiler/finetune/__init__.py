"""Fine-tuning: a user's data and a model in, a LoRA adapter out, in PEFT's format.

In the order in which data meets them: `settings`, `data`, `packing`, `model`, `tasks`, `trainer`, `adapter_folder`.
"""
