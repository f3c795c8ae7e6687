"""The memory of a tokenizer that the `tokenizers` library has read from a tokenizer.json."""

from sottovoce_compiler.memory.measured import constants


def live_tables(size: int) -> int:
    """Bytes of the hash tables made of a file of `size` bytes."""
    return round(constants("tokenizer")["least"] * size)


def tables(size: int) -> int:
    """The same with what reading them took and nothing uses again, where what follows takes memory in other pieces."""
    known = constants("tokenizer")
    return max(live_tables(size), round(known["most"] * size - known["reused"]))


def reading(size: int) -> int:
    """Bytes taken while such a file is read, its tables among them."""
    return round(constants("tokenizer")["reading"] * size)
