"""The trainer: steps, schedule, checkpoints, measures and what is shown of them, for any model and any task.

`task` is what it needs of a kind of task, `world` of the processes beside it, `strategy` of how gradients are made
whole; `loop` is read first. Nothing here knows tokens, audio or LoRA.
"""
