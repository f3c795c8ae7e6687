"""The kinds of tasks that can be trained, each fulfilling the trainer's `Task`: `chat` and `speech`."""
