// The zip form of a bundle (.svb), read without believing it: docs/bundle.md, "Two forms".
//
// The layout leaves nothing open. Names, sizes and CRCs are taken from the central directory, the archive is laid out
// anew from them, and every byte that is not a member's data must be as expected. Knows nothing of manifests. An archive
// of 4 GB or more has fields (zip64) that this reader refuses: no browser could run what is in it.

import { BundleError, printable } from '../errors.js'

const ALIGNMENT = 4096 // bytes: where a member's data may begin
const MAX_MEMBERS = 1024
const MAX_NAME = 200 // characters
const MAX_ARCHIVE = 0xfffffffe // bytes
const LOCAL = 30
const CENTRAL = 46
const END = 22
const PADDING = 6
const MAX_DIRECTORY = MAX_MEMBERS * (CENTRAL + MAX_NAME) + END
const PADDING_ID = 0xd935 // as Android's zip tools name it
const DATE = 0x21 // 1 January 1980
const MODE = (0o100644 << 16) >>> 0

const NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]*(\/[A-Za-z0-9_][A-Za-z0-9._-]*)*$/

/** @typedef {{ name: string, size: number, crc: number }} Member */
/** @typedef {Member & { header: number, data: number }} Placed where the header and the data begin, in bytes */

/**
 * The members of the archive, after checking every byte that is not a member's data.
 *
 * Throws BundleError when it is no zip, is cut short, or differs anywhere from the one layout.
 * @param {Blob} file
 * @returns {Promise<Placed[]>}
 */
export async function readLayout(file) {
  const { count, start } = await findDirectory(file)
  const found = await bytesAt(file, start, file.size - start)
  const placed = place(parseDirectory(found, count, file.size))
  if (!same(directory(placed), found)) throw damaged('its directory is not as it was written')
  for (const item of placed) {
    const header = await bytesAt(file, item.header, item.data - item.header)
    if (!same(localHeader(item), header)) throw damaged(`the header of ${item.name} is not as it was written`)
  }
  return placed
}

/**
 * Throws BundleError for a name that is not plain ASCII parts separated by "/", none of them hidden.
 * @param {string} name
 */
export function checkName(name) {
  if (name.length > MAX_NAME || !NAME.test(name)) {
    throw new BundleError(`file name ${printable(name)} is not allowed: letters, digits, ".", "_" and "-", in parts`)
  }
}

/** @param {Blob} file */
async function findDirectory(file) {
  if (file.size < END) throw damaged(`${file.size} bytes are too few`)
  if (file.size > MAX_ARCHIVE) throw new BundleError(`${file.size} bytes, more than a browser can run`)
  const end = view(await bytesAt(file, file.size - END, END))
  if (end.getUint32(0, true) !== 0x06054b50) throw damaged('its end is missing')
  const count = end.getUint16(10, true)
  const length = end.getUint32(12, true)
  const start = end.getUint32(16, true)
  if (count > MAX_MEMBERS || start + length + END !== file.size || file.size - start > MAX_DIRECTORY) {
    throw damaged('its directory does not fit')
  }
  return { count, start }
}

/**
 * Names, sizes and CRCs alone: the rest is compared afterwards, as a whole.
 * @param {Uint8Array<ArrayBuffer>} found
 * @param {number} count
 * @param {number} limit bytes of the whole file
 */
function parseDirectory(found, count, limit) {
  const data = view(found)
  /** @type {Member[]} */
  const members = []
  const seen = new Set()
  let at = 0
  for (let i = 0; i < count; i++) {
    if (at + CENTRAL > found.length) throw damaged('its directory is cut short')
    const nameLength = data.getUint16(at + 28, true)
    const end = at + CENTRAL + nameLength + data.getUint16(at + 30, true)
    if (end > found.length) throw damaged('its directory is cut short')
    const name = String.fromCharCode(...found.subarray(at + CENTRAL, at + CENTRAL + nameLength))
    checkName(name)
    if (seen.has(name.toLowerCase())) throw damaged(`${name} is there twice`)
    seen.add(name.toLowerCase())
    const size = data.getUint32(at + 24, true)
    if (size > limit) throw damaged(`${name} says it has ${size} bytes, the whole file has ${limit}`)
    members.push({ name, size, crc: data.getUint32(at + 16, true) })
    at = end
  }
  return members
}

/**
 * Where each member lies when they are written one after the other.
 * @param {Member[]} members
 * @returns {Placed[]}
 */
function place(members) {
  let offset = 0
  return members.map((member) => {
    const least = offset + LOCAL + member.name.length + PADDING
    const data = Math.ceil(least / ALIGNMENT) * ALIGNMENT
    const placed = { ...member, header: offset, data }
    offset = data + member.size
    return placed
  })
}

/**
 * Every byte from the member's header up to its data, the padding included.
 * @param {Placed} item
 */
function localHeader(item) {
  const bytes = new Uint8Array(item.data - item.header)
  const out = view(bytes)
  const extra = LOCAL + item.name.length
  out.setUint32(0, 0x04034b50, true)
  out.setUint16(4, 20, true)
  out.setUint16(12, DATE, true)
  out.setUint32(14, item.crc, true)
  out.setUint32(18, item.size, true)
  out.setUint32(22, item.size, true)
  out.setUint16(26, item.name.length, true)
  out.setUint16(28, bytes.length - extra, true)
  putText(bytes, LOCAL, item.name)
  out.setUint16(extra, PADDING_ID, true)
  out.setUint16(extra + 2, bytes.length - extra - 4, true)
  out.setUint16(extra + 4, ALIGNMENT, true)
  return bytes
}

/**
 * Every byte after the last member's data: the central directory and its end record.
 * @param {Placed[]} placed
 */
function directory(placed) {
  const length = placed.reduce((sum, item) => sum + CENTRAL + item.name.length, 0)
  const last = placed.at(-1)
  const bytes = new Uint8Array(length + END)
  const out = view(bytes)
  let at = 0
  for (const item of placed) {
    out.setUint32(at, 0x02014b50, true)
    out.setUint16(at + 4, 0x0300 | 20, true) // made on Unix
    out.setUint16(at + 6, 20, true)
    out.setUint16(at + 14, DATE, true)
    out.setUint32(at + 16, item.crc, true)
    out.setUint32(at + 20, item.size, true)
    out.setUint32(at + 24, item.size, true)
    out.setUint16(at + 28, item.name.length, true)
    out.setUint32(at + 38, MODE, true)
    out.setUint32(at + 42, item.header, true)
    putText(bytes, at + CENTRAL, item.name)
    at += CENTRAL + item.name.length
  }
  out.setUint32(at, 0x06054b50, true)
  out.setUint16(at + 8, placed.length, true)
  out.setUint16(at + 10, placed.length, true)
  out.setUint32(at + 12, length, true)
  out.setUint32(at + 16, last ? last.data + last.size : 0, true)
  return bytes
}

/**
 * @param {Blob} file
 * @param {number} offset
 * @param {number} length
 */
async function bytesAt(file, offset, length) {
  const bytes = new Uint8Array(await file.slice(offset, offset + length).arrayBuffer())
  if (length < 0 || bytes.length !== length) throw damaged('it is cut short')
  return bytes
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
function view(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/**
 * @param {Uint8Array} bytes
 * @param {number} at
 * @param {string} text ASCII
 */
function putText(bytes, at, text) {
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i)
}

/**
 * @param {Uint8Array} left
 * @param {Uint8Array} right
 */
function same(left, right) {
  return left.length === right.length && left.every((value, i) => value === right[i])
}

/** @param {string} what */
function damaged(what) {
  return new BundleError(`damaged, or not a bundle that \`sottovoce compile\` wrote: ${what}`)
}
