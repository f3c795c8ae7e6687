"""How a graph of a bundle is opened with onnxruntime: the options that all graphs have, and its errors as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnxruntime as ort

from sottovoce.bundle import Bundle
from sottovoce.errors import EngineError, InputError
from sottovoce.onnx_external import load_graph

_FOLDER_KEY = "session.model_external_initializers_file_folder_path"


def open_session(bundle: Bundle, name: str, threads: int, *, ever_other_lengths: bool = False) -> Any:
    """The session of the graph `name`, with the bundle's weights mapped where they lie. `ever_other_lengths` is for one
    whose inputs hardly ever have the same shape twice. Raises BundleError for a damaged graph, EngineError when
    onnxruntime refuses it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # The graphs are written in their final form: what is folded are constants such as tables of cosines. Fusing further
    # costs load time, and made them slower where tried.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    graph = load_graph(bundle, name)
    options.add_session_config_entry(_FOLDER_KEY, str(graph.folder))
    if ever_other_lengths:
        # A pattern of one run fits no other; and its threads must not spin while another session runs.
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return ort.InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own types, which differ between versions
        raise EngineError(f"onnxruntime cannot open {name}: {str(error).splitlines()[0]}") from error


@contextmanager
def engine_errors() -> Iterator[None]:
    """What onnxruntime raises in the block is raised as EngineError; our own errors pass."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # its own types, which differ between versions
        raise EngineError(f"onnxruntime: {str(error).splitlines()[0]}") from error
