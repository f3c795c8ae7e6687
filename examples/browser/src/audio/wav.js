// Reads RIFF/WAVE: PCM of 8 to 32 bits and floats, plain or as WAVE_FORMAT_EXTENSIBLE. What else there is, the browser
// decodes (decode.js).

import { AudioError } from '../errors.js'

const PCM = 1
const FLOAT = 3
const EXTENSIBLE = 0xfffe
const MAX_CHANNELS = 1024

/** @typedef {{ rate: number, channels: Float32Array[] }} Audio full scale is 1; `rate` in Hz */

/**
 * The samples of a WAVE file; null for one of another kind. Throws AudioError for one that is damaged.
 * @param {ArrayBuffer} file
 * @returns {Audio | null}
 */
export function readWave(file) {
  const data = new DataView(file)
  if (file.byteLength < 12 || tag(data, 0) !== 'RIFF' || tag(data, 8) !== 'WAVE') return null
  /** @type {{ kind: number, channels: number, rate: number, width: number } | null} */
  let format = null
  for (let at = 12; at + 8 <= file.byteLength; ) {
    const size = data.getUint32(at + 4, true)
    const kind = tag(data, at)
    if (kind === 'fmt ') {
      format = readFormat(data, at + 8, size)
      if (!format) return null
    }
    if (kind === 'data') {
      if (!format) throw new AudioError('the data comes before the fmt chunk; not a WAV file that can be read')
      return readSamples(data, at + 8, size, format)
    }
    at += 8 + size + (size % 2)
  }
  throw new AudioError('this WAV file has no data chunk; it is damaged or cut short')
}

/**
 * @param {DataView} data
 * @param {number} at
 * @param {number} size
 */
function readFormat(data, at, size) {
  if (size < 16 || at + size > data.byteLength) throw new AudioError('the fmt chunk of this WAV file is cut short')
  const plain = data.getUint16(at, true)
  const kind = plain === EXTENSIBLE && size >= 40 ? data.getUint16(at + 24, true) : plain
  const channels = data.getUint16(at + 2, true)
  if (!channels || channels > MAX_CHANNELS) throw new AudioError(`the header says ${channels} channels`)
  const width = data.getUint16(at + 12, true) / channels
  const known = kind === PCM ? [1, 2, 3, 4] : kind === FLOAT ? [4, 8] : []
  return known.includes(width) ? { kind, channels, rate: data.getUint32(at + 4, true), width } : null
}

/**
 * @param {DataView} data
 * @param {number} at
 * @param {number} size
 * @param {{ kind: number, channels: number, rate: number, width: number }} format
 * @returns {Audio}
 */
function readSamples(data, at, size, { kind, channels, rate, width }) {
  const there = data.byteLength - at
  const frame = channels * width
  // Recorders that were switched off, and pipes, leave sizes that were never filled in: they mean "to the end".
  const open = size === 0 || size >= 0x7fff0000
  if (!open && size - there > frame) {
    throw new AudioError(`truncated: ${there} of the ${size} bytes of audio that the header promises`)
  }
  const frames = Math.floor(Math.min(there, open ? there : size) / frame)
  const read = reader(data, kind, width)
  const out = Array.from({ length: channels }, () => new Float32Array(frames))
  out.forEach((samples, channel) => {
    for (let i = 0; i < frames; i++) samples[i] = read(at + i * frame + channel * width)
  })
  return { rate, channels: out }
}

/**
 * @param {DataView} data
 * @param {number} kind
 * @param {number} width bytes
 * @returns {(at: number) => number}
 */
function reader(data, kind, width) {
  if (kind === FLOAT) return width === 4 ? (at) => data.getFloat32(at, true) : (at) => data.getFloat64(at, true)
  if (width === 1) return (at) => (data.getUint8(at) - 128) / 128
  if (width === 2) return (at) => data.getInt16(at, true) / 2 ** 15
  if (width === 3) return (at) => (data.getInt16(at + 1, true) * 256 + data.getUint8(at)) / 2 ** 23
  return (at) => data.getInt32(at, true) / 2 ** 31
}

/**
 * @param {DataView} data
 * @param {number} at
 */
function tag(data, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((i) => data.getUint8(at + i)))
}
