import pytest

from sottovoce.engines.llama_cpp.checks import ModelFacts
from sottovoce.engines.llama_cpp.memory import Room, check_memory, needed_bytes
from sottovoce.errors import EngineError

FACTS = ModelFacts("llama", 30, 576, 1536, 9, 8192, 49152, 30 * 3 * 128, None)
ROOM = Room(4096, 256, 32)
MB = 1_000_000


def test_where_nobody_says_what_is_available_nothing_is_refused() -> None:
    check_memory(1 << 60, FACTS, ROOM, None)


def test_the_cache_grows_with_the_context_and_is_part_of_what_is_needed() -> None:
    small, large = needed_bytes(0, FACTS, Room(1024, 256, 32)), needed_bytes(0, FACTS, Room(8192, 256, 32))
    assert large - small >= 7168 * FACTS.position_values * 2
    assert needed_bytes(MB, FACTS, ROOM) - needed_bytes(0, FACTS, ROOM) == MB


def test_what_does_not_fit_is_refused_with_both_numbers_and_the_way_out() -> None:
    needed = needed_bytes(90 * MB, FACTS, ROOM)
    check_memory(90 * MB, FACTS, ROOM, needed)
    with pytest.raises(
        EngineError, match=rf"needs about {needed // MB} MB, 94 MB of it for 4096 .* {(needed - 1) // MB} MB are"
    ):
        check_memory(90 * MB, FACTS, ROOM, needed - 1)
