"""The classes of Core ML's file format, from coremltools, imported when they are first needed."""

import importlib
import logging
from types import ModuleType

from sottovoce.errors import MissingExtraError


def modelproto() -> ModuleType:
    """`Model_pb2`. Raises MissingExtraError without coremltools."""
    return _proto("Model_pb2")


def milproto() -> ModuleType:
    """`MIL_pb2`. Raises MissingExtraError without coremltools."""
    return _proto("MIL_pb2")


def _proto(name: str) -> ModuleType:
    logger = logging.getLogger("coremltools")
    before = logger.level
    # It warns that it cannot run models here, which is why there is an evaluator.
    logger.setLevel(logging.CRITICAL)
    try:
        return importlib.import_module(f"coremltools.proto.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "coremltools":
            raise
        raise MissingExtraError(
            "Core ML packages need coremltools: pip install 'sottovoce-compiler[coreml]'"
        ) from error
    finally:
        logger.setLevel(before)
