"""A user's lines of JSON, checked first and then made examples: token ids, and which of them are learned.

`lines` checks, `conversation`, `instruction` and `text` make examples, `split` parts them, `dataset` does all of it.
"""
