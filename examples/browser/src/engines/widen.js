// Widens a graph's quantized matrices to float32 when it is opened, because ONNX Runtime Web has no kernel for them.
//
// A bundle's decoder multiplies by matrices of 4 or 8 bits (MatMulNBits). On a device's processor that is the fastest form.
// In WebAssembly, ONNX Runtime widens the whole matrix anew in every run: the output head of whisper-tiny.en took 57 ms a
// token so, and 3 ms once it was wide. So the weights are widened once here, for four to eight times the memory.
//
// Message and field numbers: onnx.proto of ONNX 1.20 (github.com/onnx/onnx). MatMulNBits: ONNX Runtime's ContribOperators.

import { BundleError, printable } from '../errors.js'
import { bytesField, fieldsOf, joined, numberField, numbersOf, textOf } from './protobuf.js'

/** @typedef {import('./protobuf.js').Field} Field */
/**
 * A tensor of the graph that lies in the weight file.
 * @typedef {{ name: string, dims: number[], type: number, offset: number, length: number }} Stored
 */
/** @typedef {{ inputs: string[], output: string, rows: number, columns: number, bits: number, block: number }} Quantized */

export const WIDENED = 'widened.bin'
const MODEL_GRAPH = 7
const NODE = 1
const INITIALIZER = 5
const FLOAT = 1
const UINT8 = 2
const DOMAIN = 'com.microsoft'
const MAX_ROW = 1 << 20 // values
const MAX_BYTES = 0xffffffff // what 32-bit WebAssembly can address

/**
 * The graph with float32 matrices, and the file in which they lie; null where it has no quantized ones.
 *
 * Throws BundleError for a graph that is damaged, or whose matrices do not fit their weights.
 * @param {Uint8Array} model a serialized ModelProto
 * @param {Uint8Array} weights the file that its tensors refer to
 * @returns {{ model: Uint8Array, widened: Uint8Array } | null}
 */
export function widen(model, weights) {
  const top = fieldsOf(model)
  const graph = top.find(({ number }) => number === MODEL_GRAPH)
  if (!graph) throw new BundleError('a graph is damaged: there is none in it')
  const fields = fieldsOf(graph.body)
  const stored = new Map(fields.flatMap((field) => (field.number === INITIALIZER ? entry(readStored(field.body)) : [])))
  const nodes = fields.map((field) => (field.number === NODE ? readQuantized(fieldsOf(field.body)) : null))
  const wide = nodes.filter((node) => node !== null)
  if (!wide.length) return null
  const places = placesOf(wide, stored)
  const replaced = new Set(wide.flatMap(({ inputs }) => inputs.slice(1, 4)))
  const made = fields.flatMap((field, i) => {
    const node = nodes[i]
    if (node) return wideNodes(node)
    const name = field.number === INITIALIZER ? readStored(field.body)?.name : undefined
    return name !== undefined && replaced.has(name) ? [] : [field.whole]
  })
  const initializers = [...places].map(([name, { node, offset }]) => wideTensor(name, node, offset))
  const body = joined([...made, ...initializers])
  return {
    model: joined(top.map((field) => (field === graph ? bytesField(MODEL_GRAPH, body) : field.whole))),
    widened: widenedFile(places, stored, weights),
  }
}

/**
 * A MatMulNBits that can be widened; null for any other node.
 * @param {Field[]} node
 * @returns {Quantized | null}
 */
function readQuantized(node) {
  const texts = (/** @type {number} */ number) => node.filter((one) => one.number === number).map(({ body }) => textOf(body))
  if (texts(4)[0] !== 'MatMulNBits' || texts(7)[0] !== DOMAIN) return null
  const attributes = new Map(
    node.filter(({ number }) => number === 5).map(({ body }) => {
      const fields = fieldsOf(body)
      return [textOf(fields.find(({ number }) => number === 1)?.body ?? new Uint8Array(0)), numbersOf(fields, 3)[0] ?? 0]
    }),
  )
  const number = (/** @type {string} */ name) => attributes.get(name) ?? 0
  const [inputs, [output = '']] = [texts(1), texts(2)]
  const [rows, columns, bits, block] = [number('N'), number('K'), number('bits'), number('block_size')]
  const sound = Math.max(rows, columns) <= MAX_ROW && (bits === 4 || bits === 8) && block >= 16 && columns % block === 0
  // An order of columns, which no bundle of ours has, is left to ONNX Runtime.
  if (!sound || inputs[4]) return null
  return { inputs, output, rows, columns, bits, block }
}

/**
 * A tensor whose bytes lie elsewhere; null for one that is stored in the graph.
 * @param {Uint8Array} body a TensorProto
 * @returns {Stored | null}
 */
function readStored(body) {
  const fields = fieldsOf(body)
  const place = new Map(
    fields.filter(({ number }) => number === 13).map(({ body: pair }) => {
      const both = fieldsOf(pair)
      const part = (/** @type {number} */ number) => textOf(both.find((one) => one.number === number)?.body ?? new Uint8Array(0))
      return [part(1), part(2)]
    }),
  )
  if (!place.has('length')) return null
  return {
    name: textOf(fields.find(({ number }) => number === 8)?.body ?? new Uint8Array(0)),
    dims: numbersOf(fields, 1),
    type: numbersOf(fields, 2)[0] ?? 0,
    offset: Number(place.get('offset') ?? 0),
    length: Number(place.get('length')),
  }
}

/**
 * @param {Stored | null} stored
 * @returns {[string, Stored][]}
 */
function entry(stored) {
  return stored ? [[stored.name, stored]] : []
}

/**
 * Where each matrix lies in the new file; one that two nodes share lies there once.
 * @param {Quantized[]} wide
 * @param {Map<string, Stored>} stored
 */
function placesOf(wide, stored) {
  /** @type {Map<string, { node: Quantized, offset: number }>} */
  const places = new Map()
  let offset = 0
  for (const node of wide) {
    const [, codes = '', scales = '', zeros = ''] = node.inputs
    check(stored.get(codes), UINT8, (node.rows * node.columns * node.bits) / 8, codes)
    check(stored.get(scales), FLOAT, (4 * node.rows * node.columns) / node.block, scales)
    if (zeros) check(stored.get(zeros), UINT8, node.rows * zeroBytes(node), zeros)
    if (places.has(codes)) continue
    places.set(codes, { node, offset })
    offset += 4 * node.rows * node.columns
  }
  if (offset > MAX_BYTES) throw new BundleError(`the model needs ${offset} bytes, more than a browser can address`)
  return places
}

/**
 * @param {Stored | undefined} tensor
 * @param {number} type
 * @param {number} length bytes
 * @param {string} name
 */
function check(tensor, type, length, name) {
  const aligned = tensor && Number.isInteger(tensor.offset / 4) && tensor.offset >= 0
  if (!aligned || tensor.type !== type || tensor.length !== length) {
    throw new BundleError(`a graph is damaged: ${printable(name)} does not fit its matrix`)
  }
}

/**
 * @param {Map<string, { node: Quantized, offset: number }>} places
 * @param {Map<string, Stored>} stored
 * @param {Uint8Array} weights
 */
function widenedFile(places, stored, weights) {
  const last = [...places.values()].at(-1)
  const file = new Uint8Array(last ? last.offset + 4 * last.node.rows * last.node.columns : 0)
  for (const { node, offset } of places.values()) {
    const codes = part(weights, stored.get(node.inputs[1] ?? ''))
    const scaleBytes = part(weights, stored.get(node.inputs[2] ?? ''))
    const scales = new Float32Array(scaleBytes.buffer, scaleBytes.byteOffset, scaleBytes.length / 4)
    const zeros = node.inputs[3] ? part(weights, stored.get(node.inputs[3])) : null
    widenMatrix(codes, scales, zeros, node, new Float32Array(file.buffer, offset, node.rows * node.columns))
  }
  return file
}

/**
 * Codes are unsigned: each block has a code that means zero, half of what the bits can hold where there is no list of
 * them. Of two codes of 4 bits in a byte the lower comes first; a row of zeros begins with a whole byte.
 * @param {Uint8Array} codes
 * @param {Float32Array} scales
 * @param {Uint8Array | null} zeros
 * @param {Quantized} node
 * @param {Float32Array} out
 */
function widenMatrix(codes, scales, zeros, node, out) {
  const { bits, block, columns } = node
  const [bytes, blocks, stride] = [(block * bits) / 8, columns / block, zeroBytes(node)]
  scales.forEach((scale, i) => {
    const [row, at] = [Math.floor(i / blocks), i % blocks]
    const packed = zeros?.[row * stride + Math.floor((at * bits) / 8)] ?? (bits === 8 ? 0x80 : 0x88)
    const zero = bits === 8 ? packed : (packed >> (4 * (at % 2))) & 15
    const [from, to] = [i * bytes, i * block]
    if (bits === 8) for (let j = 0; j < block; j++) out[to + j] = ((codes[from + j] ?? 0) - zero) * scale
    else {
      for (let j = 0; j < bytes; j++) {
        const pair = codes[from + j] ?? 0
        out[to + 2 * j] = ((pair & 15) - zero) * scale
        out[to + 2 * j + 1] = ((pair >> 4) - zero) * scale
      }
    }
  })
}

/**
 * Bytes of the zeros of one row.
 * @param {Quantized} node
 */
function zeroBytes({ columns, block, bits }) {
  return Math.ceil((columns / block) * (bits / 8))
}

/**
 * @param {Uint8Array} weights
 * @param {Stored | undefined} tensor
 */
function part(weights, tensor) {
  const found = weights.subarray(tensor?.offset, (tensor?.offset ?? 0) + (tensor?.length ?? 0))
  if (!tensor || found.length !== tensor.length) {
    throw new BundleError(`a graph is damaged: ${printable(tensor?.name ?? '')} ends beyond the weights`)
  }
  return found
}

/**
 * The nodes that stand for one MatMulNBits.
 * @param {Quantized} node
 * @returns {Uint8Array[]}
 */
function wideNodes({ inputs, output }) {
  const [x = '', codes = '', , , , bias = ''] = inputs
  const product = bias ? `${output}/product` : output
  const nodes = [nodeField('FusedMatMul', [x, `${codes}/wide`], product, DOMAIN, { transB: 1 })]
  if (bias) nodes.push(nodeField('Add', [product, bias], output))
  return nodes
}

/**
 * @param {string} codes name of the quantized matrix
 * @param {Quantized} node
 * @param {number} offset
 */
function wideTensor(codes, { rows, columns }, offset) {
  const place = Object.entries({ location: WIDENED, offset: String(offset), length: String(4 * rows * columns) })
  const entries = place.map(([key, value]) => bytesField(13, joined([bytesField(1, key), bytesField(2, value)])))
  const shape = [rows, columns].map((dim) => numberField(1, dim))
  const fields = [...shape, numberField(2, FLOAT), bytesField(8, `${codes}/wide`), ...entries, numberField(14, 1)]
  return bytesField(INITIALIZER, joined(fields))
}

/**
 * @param {string} operator
 * @param {string[]} inputs
 * @param {string} output
 * @param {string} [domain]
 * @param {Record<string, number>} [attributes]
 */
function nodeField(operator, inputs, output, domain = '', attributes = {}) {
  const given = Object.entries(attributes).map(([name, value]) =>
    bytesField(5, joined([bytesField(1, name), numberField(3, value), numberField(20, 2)])),
  )
  const names = [...inputs.map((name) => bytesField(1, name)), bytesField(2, output)]
  return bytesField(NODE, joined([...names, bytesField(4, operator), ...given, bytesField(7, domain)]))
}
