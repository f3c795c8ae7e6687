"""What networks are made of, as LiteRT operators that its CPU kernels (XNNPACK) run: norms, products, activations.

Knows operators and shapes; knows no model. A dimension of -1 is set before the graph runs, and takes part in no
arithmetic here: a shape given to a reshape has at most one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sottovoce_compiler.lowerings.litert.graph import Graph, Packed
from sottovoce_compiler.lowerings.litert.schema import schema

Float = NDArray[np.float32]
Half = NDArray[np.float16]
Stored = Float | Half | Packed  # how a matrix (rows, columns) is kept


def _broadcast(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    """The shape of an elementwise result."""
    longest = max(len(a), len(b))
    first, second = (1,) * (longest - len(a)) + tuple(a), (1,) * (longest - len(b)) + tuple(b)
    return tuple(y if x == 1 else x for x, y in zip(first, second, strict=True))


def binary(g: Graph, kind: str, a: int, b: int) -> int:
    """ADD, SUB, MUL, DIV or MAXIMUM of two tensors, the smaller one repeated."""
    options = "MaximumMinimumOptionsT" if kind == "MAXIMUM" else f"{kind.title()}OptionsT"
    return g.op(kind, [a, b], _broadcast(g.shapes[a], g.shapes[b]), getattr(schema(), options)())


def unary(g: Graph, kind: str, x: int) -> int:
    """RSQRT, LOG, LOGISTIC, ...: elementwise."""
    return g.op(kind, [x], g.shapes[x])


def gelu(g: Graph, x: int, *, approximate: bool = False) -> int:
    """GELU by the error function, or by the hyperbolic tangent."""
    options = schema().GeluOptionsT()
    options.approximate = approximate
    return g.op("GELU", [x], g.shapes[x], options)


def reshape(g: Graph, x: int, shape: Sequence[int]) -> int:
    """The same values in another shape; one dimension may be -1."""
    options = schema().ReshapeOptionsT()
    options.newShape = list(shape)
    return g.op("RESHAPE", [x, g.constant(shape, "int32")], shape, options)


def transpose(g: Graph, x: int, order: Sequence[int]) -> int:
    shape = [g.shapes[x][axis] for axis in order]
    return g.op("TRANSPOSE", [x, g.constant(order, "int32")], shape, schema().TransposeOptionsT())


def split(g: Graph, x: int, sizes: Sequence[int], axis: int) -> list[int]:
    """Parts of these sizes along an axis."""
    shapes = [(*g.shapes[x][:axis], size, *g.shapes[x][axis + 1 :]) for size in sizes]
    place = g.constant(axis, "int32")
    if len(set(sizes)) == 1:
        options = schema().SplitOptionsT()
        options.numSplits = len(sizes)
        return g.multi("SPLIT", [place, x], shapes, options)
    # Parts of different sizes: XNNPACK cuts them out one by one.
    parts, start = [], 0
    for size, shape in zip(sizes, shapes, strict=True):
        parts.append(cut(g, x, axis, start, start + size, shape))
        start += size
    return parts


def concat(g: Graph, parts: Sequence[int], axis: int) -> int:
    options = schema().ConcatenationOptionsT()
    options.axis = axis
    shape = list(g.shapes[parts[0]])
    sizes = [g.shapes[part][axis] for part in parts]
    shape[axis] = -1 if -1 in sizes else sum(sizes)
    return g.op("CONCATENATION", parts, shape, options)


def cut(g: Graph, x: int, axis: int, start: int, end: int | None, shape: Sequence[int]) -> int:
    """Values `start` to `end` of an axis, fewer where there are fewer; to the last where `end` is None."""
    options, rank = schema().StridedSliceOptionsT(), len(g.shapes[x])
    options.beginMask = options.endMask = ((1 << rank) - 1) & ~(1 << axis)
    if end is None:
        options.endMask |= 1 << axis
    begins, ends = [0] * rank, [0] * rank
    begins[axis], ends[axis] = start, end or 0
    inputs = [x, *(g.constant(one, "int32") for one in (begins, ends, [1] * rank))]
    return g.op("STRIDED_SLICE", inputs, shape, options)


def gather(g: Graph, x: int, index: int, axis: int = 0) -> int:
    """The values that `index` names along an axis."""
    options = schema().GatherOptionsT()
    options.axis = axis
    before, after = g.shapes[x][:axis], g.shapes[x][axis + 1 :]
    return g.op("GATHER", [x, index], (*before, *g.shapes[index], *after), options)


def reduce(g: Graph, kind: str, x: int, axes: Sequence[int]) -> int:
    """MEAN, SUM or REDUCE_MAX over axes, which stay with length 1."""
    options = schema().ReducerOptionsT()
    options.keepDims = True
    shape = [1 if axis in axes else size for axis, size in enumerate(g.shapes[x])]
    return g.op(kind, [x, g.constant(axes, "int32")], shape, options)


def softmax(g: Graph, x: int) -> int:
    """Over the last axis."""
    options = schema().SoftmaxOptionsT()
    options.beta = 1.0
    return g.op("SOFTMAX", [x], g.shapes[x], options)


def matmul(g: Graph, a: int, b: int, *, transposed: bool = False) -> int:
    """(..., m, k) x (..., k, n); with `transposed`, b is (..., n, k)."""
    options = schema().BatchMatMulOptionsT()
    options.adjY = transposed
    columns = g.shapes[b][-2 if transposed else -1]
    return g.op("BATCH_MATMUL", [a, b], (*g.shapes[a][:-1], columns), options)


def layer_norm(g: Graph, x: int, gamma: int, beta: int, epsilon: float = 1e-5) -> int:
    """Over the last axis (Ba et al. 2016, arXiv 1607.06450)."""
    last = [len(g.shapes[x]) - 1]
    centred = binary(g, "SUB", x, reduce(g, "MEAN", x, last))
    variance = reduce(g, "MEAN", binary(g, "MUL", centred, centred), last)
    scaled = binary(g, "MUL", centred, _inverse_root(g, variance, epsilon))
    return binary(g, "ADD", binary(g, "MUL", scaled, gamma), beta)


def rms_norm(g: Graph, x: int, gamma: int, epsilon: float) -> int:
    """Over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467)."""
    square = reduce(g, "MEAN", binary(g, "MUL", x, x), [len(g.shapes[x]) - 1])
    return binary(g, "MUL", binary(g, "MUL", x, _inverse_root(g, square, epsilon)), gamma)


def _inverse_root(g: Graph, x: int, epsilon: float) -> int:
    return unary(g, "RSQRT", binary(g, "ADD", x, g.constant([epsilon])))


def linear(g: Graph, x: int, name: str, matrix: Stored, bias: Float | None = None) -> int:
    """y = x W^T + b over the last axis; with quantized weights each row of x is rounded to 8 bits as it arrives."""
    options = schema().FullyConnectedOptionsT()
    options.keepNumDims = True
    options.asymmetricQuantizeInputs = isinstance(matrix, Packed)
    if isinstance(matrix, Packed):
        weight, rows = g.packed(name, matrix), len(matrix.scales)
    else:
        weight, rows = table(g, name, matrix), len(matrix)
    inputs = [x, weight, -1 if bias is None else g.weight(f"{name}.bias", bias)]
    return g.op("FULLY_CONNECTED", inputs, (*g.shapes[x][:-1], rows), options)


def self_attention(g: Graph, new: tuple[int, int, int], past: tuple[int, int], biases: tuple[int, int]) -> int:
    """Attention of new tokens to those before and to each other, without the two ever lying in one tensor: the cache
    stays where the engine has it. Query, key and value of the new ones, the past's key and value, (1, heads, t, width)
    each; biases of the past and the new."""
    (q, k, v), (past_key, past_value), (past_bias, new_bias) = new, past, biases
    before = binary(g, "ADD", matmul(g, q, past_key, transposed=True), past_bias)
    among = binary(g, "ADD", matmul(g, q, k, transposed=True), new_bias)
    # Two softmaxes over one sum: each part by the exponentials of its own scores less the larger of the two tops.
    top = binary(g, "MAXIMUM", reduce(g, "REDUCE_MAX", before, [3]), reduce(g, "REDUCE_MAX", among, [3]))
    first, second = (unary(g, "EXP", binary(g, "SUB", scores, top)) for scores in (before, among))
    total = binary(g, "ADD", reduce(g, "SUM", first, [3]), reduce(g, "SUM", second, [3]))
    mixed = binary(g, "ADD", matmul(g, first, past_value), matmul(g, second, v))
    return binary(g, "DIV", mixed, total)


def lookup(g: Graph, name: str, matrix: Stored, tokens: int) -> int:
    """Rows of a matrix, (tokens, columns) float32 for `tokens` (tokens,) int32."""
    if not isinstance(matrix, Packed):
        return gather(g, table(g, name, matrix), tokens)
    shape = (*g.shapes[tokens], matrix.columns)
    return g.op("EMBEDDING_LOOKUP", [tokens, g.packed(name, matrix)], shape)


def table(g: Graph, name: str, array: Float | Half) -> int:
    """A float32 tensor; what is stored in half precision is widened when the file is loaded."""
    stored = g.weight(name, array)
    if array.dtype != np.float16:
        return stored
    if stored not in g.widened:
        g.widened[stored] = g.op("DEQUANTIZE", [stored], array.shape, schema().DequantizeOptionsT())
    return g.widened[stored]


def conv(g: Graph, x: int, name: str, kernel: Float | Half, bias: Float | None, stride: int) -> int:
    """Over time: (1, 1, t, inputs) -> (1, 1, t', outputs), no padding; `kernel` (outputs, inputs, width), as torch has
    it."""
    options = schema().Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema().Padding.VALID, 1, stride
    options.dilationHFactor = options.dilationWFactor = 1
    outputs = len(kernel)
    laid_out = kernel.transpose(0, 2, 1)[:, None]
    weight = table(g, name, laid_out.copy())
    shift = np.zeros(outputs, np.float32) if bias is None else bias
    return g.op("CONV_2D", [x, weight, g.weight(f"{name}.bias", shift)], (1, 1, -1, outputs), options)


def pad(g: Graph, x: int, axis: int, before: int, after: int, kind: str = "PAD") -> int:
    """Zeros before and after along an axis; the values there, mirrored, with MIRROR_PAD."""
    tfl = schema()
    options: Any = tfl.PadOptionsT() if kind == "PAD" else tfl.MirrorPadOptionsT()
    widths = np.zeros((len(g.shapes[x]), 2), np.int32)
    widths[axis] = before, after
    shape = list(g.shapes[x])
    shape[axis] = -1 if shape[axis] < 0 else shape[axis] + before + after
    return g.op(kind, [x, g.constant(widths, "int32")], shape, options)
