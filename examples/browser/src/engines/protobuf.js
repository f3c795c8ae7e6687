// As much of protobuf's wire format (protobuf.dev, "Encoding") as taking an ONNX graph apart and putting it together needs.

import { BundleError } from '../errors.js'

const VARINT = 0
const FIXED64 = 1
const BYTES = 2
const FIXED32 = 5

/**
 * A field of a message: its number, the number it holds (or NaN), the bytes it holds (or none), and all of it as it stood.
 * @typedef {{ number: number, value: number, body: Uint8Array, whole: Uint8Array }} Field
 */

/**
 * The fields of a message, in order. Throws BundleError where it is damaged.
 * @param {Uint8Array} message
 * @returns {Field[]}
 */
export function fieldsOf(message) {
  /** @type {Field[]} */
  const fields = []
  for (let at = 0; at < message.length; ) {
    const start = at
    const tag = varint(message, at)
    const wire = tag.value & 7
    at = tag.end
    let value = NaN
    let body = message.subarray(0, 0)
    if (wire === VARINT || wire === BYTES) {
      const number = varint(message, at)
      at = number.end
      if (wire === VARINT) value = number.value
      else {
        body = message.subarray(at, at + number.value)
        at += number.value
      }
    } else if (wire === FIXED64 || wire === FIXED32) at += wire === FIXED64 ? 8 : 4
    else throw damaged()
    if (at > message.length || tag.value < 8) throw damaged()
    fields.push({ number: Math.floor(tag.value / 8), value, body, whole: message.subarray(start, at) })
  }
  return fields
}

/**
 * The text of a field's body.
 * @param {Uint8Array} body
 */
export function textOf(body) {
  return new TextDecoder().decode(body)
}

/**
 * The numbers of all fields of that number, packed or not.
 * @param {Field[]} fields
 * @param {number} number
 * @returns {number[]}
 */
export function numbersOf(fields, number) {
  return fields.filter((field) => field.number === number).flatMap(({ value, body }) => {
    if (!Number.isNaN(value)) return [value]
    const found = []
    for (let at = 0; at < body.length; ) {
      const one = varint(body, at)
      found.push(one.value)
      at = one.end
    }
    return found
  })
}

/**
 * A field that holds a number of at least 0.
 * @param {number} number
 * @param {number} value
 */
export function numberField(number, value) {
  return joined([encoded(number * 8 + VARINT), encoded(value)])
}

/**
 * A field that holds bytes: a text or a message.
 * @param {number} number
 * @param {Uint8Array | string} body
 */
export function bytesField(number, body) {
  const bytes = typeof body === 'string' ? new TextEncoder().encode(body) : body
  return joined([encoded(number * 8 + BYTES), encoded(bytes.length), bytes])
}

/**
 * @param {readonly Uint8Array[]} parts
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function joined(parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    out.set(part, at)
    at += part.length
  }
  return out
}

/** @param {number} value */
function encoded(value) {
  const bytes = []
  let rest = value
  for (; rest > 0x7f; rest = Math.floor(rest / 128)) bytes.push((rest & 0x7f) | 0x80)
  return Uint8Array.of(...bytes, rest)
}

/**
 * An unsigned number and where it ends. What is beyond 53 bits is a negative number, which nothing here reads: it comes
 * out imprecise.
 * @param {Uint8Array} message
 * @param {number} at
 */
function varint(message, at) {
  let value = 0
  let factor = 1
  for (let i = 0; i < 10; i++) {
    const byte = message[at + i]
    if (byte === undefined) break
    value += (byte & 0x7f) * factor
    if (byte < 0x80) return { value, end: at + i + 1 }
    factor *= 128
  }
  throw damaged()
}

function damaged() {
  return new BundleError('a graph is damaged: it is not protobuf')
}
