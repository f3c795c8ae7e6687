"""Which cross-attention heads follow the audio word by word, for each published Whisper.

Facts published with the models (openai/whisper, `_ALIGNMENT_HEADS`), keyed by what a config tells: decoder layers,
heads and vocabulary size. Large-v1 and v2 share a shape; v2's heads stand for both unless the checkpoint says
otherwise.
"""

Heads = tuple[tuple[int, int], ...]  # (decoder layer, head)

_TINY_EN = ((1, 0), (2, 0), (2, 5), (3, 0), (3, 1), (3, 2), (3, 3), (3, 4))
_TINY = ((2, 2), (3, 0), (3, 2), (3, 3), (3, 4), (3, 5))
_BASE_EN = ((3, 3), (4, 7), (5, 1), (5, 5), (5, 7))
_BASE = ((3, 1), (4, 2), (4, 3), (4, 7), (5, 1), (5, 2), (5, 4), (5, 6))
# fmt: off
_SMALL_EN = (
    (6, 6), (7, 0), (7, 3), (7, 8), (8, 2), (8, 5), (8, 7), (9, 0), (9, 4), (9, 8), (9, 10), (10, 0), (10, 1),
    (10, 2), (10, 3), (10, 6), (10, 11), (11, 2), (11, 4),
)
_SMALL = ((5, 3), (5, 9), (8, 0), (8, 4), (8, 7), (8, 8), (9, 0), (9, 7), (9, 9), (10, 5))
_MEDIUM_EN = (
    (11, 4), (14, 1), (14, 12), (14, 14), (15, 4), (16, 0), (16, 4), (16, 9), (17, 12), (17, 14), (18, 7), (18, 10),
    (18, 15), (20, 0), (20, 3), (20, 9), (20, 14), (21, 12),
)
_MEDIUM = ((13, 15), (15, 4), (15, 15), (16, 1), (20, 0), (23, 4))
_LARGE_V2 = (
    (10, 12), (13, 17), (16, 11), (16, 12), (16, 13), (17, 15), (17, 16), (18, 4), (18, 11), (18, 19), (19, 11),
    (21, 2), (21, 3), (22, 3), (22, 9), (22, 12), (23, 5), (23, 7), (23, 13), (25, 5), (26, 1), (26, 12), (27, 15),
)
_LARGE_V3 = ((7, 0), (10, 17), (12, 18), (13, 12), (16, 1), (17, 14), (19, 11), (21, 4), (24, 1), (25, 6))
# fmt: on
_TURBO = ((2, 4), (2, 11), (3, 3), (3, 6), (3, 11), (3, 14))

PUBLISHED: dict[tuple[int, int, int], Heads] = {
    (4, 6, 51864): _TINY_EN,
    (4, 6, 51865): _TINY,
    (6, 8, 51864): _BASE_EN,
    (6, 8, 51865): _BASE,
    (12, 12, 51864): _SMALL_EN,
    (12, 12, 51865): _SMALL,
    (24, 16, 51864): _MEDIUM_EN,
    (24, 16, 51865): _MEDIUM,
    (32, 20, 51865): _LARGE_V2,
    (32, 20, 51866): _LARGE_V3,
    (4, 20, 51866): _TURBO,
}


def later_half(layers: int, heads: int) -> Heads:
    """Every head of the later half of the layers: what serves when nothing was measured."""
    return tuple((layer, head) for layer in range(layers // 2, layers) for head in range(heads))
