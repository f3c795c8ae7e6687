// What a bundle says of itself: manifest.json, format 1 (docs/bundle.md), read with bounds.
//
// Knows the manifest's keys and which versions fit together. What `audio`, `model` and `generation` mean belongs to what
// reads them.

import { BundleError, printable } from '../errors.js'
import { checkName } from './archive.js'

export const MANIFEST = 'manifest.json'
export const MANIFEST_DIGEST = 'manifest.sha256'
export const MAX_MANIFEST_BYTES = 4 << 20

const FORMAT = 1
const RUNTIME = '0.1.0' // the version of sottovoce whose bundles this page knows
const VERSION = /^\d{1,6}(\.\d{1,6}){0,3}$/
const SHA256 = /^[0-9a-f]{64}$/
const KNOWN = new Set([
  'format', 'requires', 'required', 'task', 'family', 'name', 'precision', 'source', 'target', 'engine', 'audio',
  'model', 'generation', 'stream', 'components', 'files',
]) // prettier-ignore

/** @typedef {Record<string, unknown>} Table */
/** @typedef {{ bytes: number, sha256: string }} FileEntry */
/**
 * @typedef {object} Manifest
 * @property {string} task
 * @property {string} family
 * @property {string} name
 * @property {string} precision
 * @property {string} target its name
 * @property {string | null} licence of the weights
 * @property {{ name: string, min: string, max: string | null }} engine versions from `min` up to, not including, `max`
 * @property {Table} audio
 * @property {Table} model
 * @property {Table} generation
 * @property {Map<string, FileEntry>} files
 */

/**
 * Throws BundleError for anything damaged, absurd, or made for a newer runtime.
 * @param {Uint8Array} data
 * @returns {Manifest}
 */
export function parseManifest(data) {
  const raw = parseObject(data, MANIFEST, MAX_MANIFEST_BYTES)
  const needed = version(table(raw, 'requires'), 'runtime', 'requires.runtime')
  if (raw.format !== FORMAT || compareVersions(RUNTIME, needed) < 0) {
    throw new BundleError(`made for a newer sottovoce (format ${printable(raw.format)}, ${needed}); update this page`)
  }
  const required = raw.required ?? []
  if (!Array.isArray(required)) throw wrong('required', required, 'a list')
  const unknown = required.find((key) => typeof key !== 'string' || !KNOWN.has(key))
  if (unknown !== undefined) throw new BundleError(`needs a page that knows ${printable(unknown)}; update this page`)
  const engine = table(raw, 'engine')
  const source = table(raw, 'source')
  return {
    task: text(raw, 'task'),
    family: text(raw, 'family'),
    name: text(raw, 'name'),
    precision: text(raw, 'precision'),
    target: text(table(raw, 'target'), 'name'),
    licence: source.licence == null ? null : text(source, 'licence'),
    engine: {
      name: text(engine, 'name'),
      min: version(engine, 'min_version', 'engine.min_version'),
      max: engine.max_version == null ? null : version(engine, 'max_version', 'engine.max_version'),
    },
    audio: raw.audio === undefined ? {} : table(raw, 'audio'),
    model: raw.model === undefined ? {} : table(raw, 'model'),
    generation: raw.generation === undefined ? {} : table(raw, 'generation'),
    files: parseFiles(table(raw, 'files')),
  }
}

/**
 * The JSON object in `data`, called `name` in errors. Throws BundleError otherwise.
 * @param {Uint8Array} data
 * @param {string} name
 * @param {number} limit bytes
 * @returns {Table}
 */
export function parseObject(data, name, limit) {
  if (data.length > limit) throw new BundleError(`${name} has ${data.length} bytes, more than the ${limit} allowed`)
  /** @type {unknown} */
  let value
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(data))
  } catch (error) {
    throw new BundleError(`${name} is not valid JSON: ${printable(error instanceof Error ? error.message : '')}`)
  }
  if (!isTable(value)) throw new BundleError(`${name} is not an object`)
  return value
}

/**
 * Throws BundleError when `installed` lies outside the range that the bundle was checked with.
 * @param {Manifest['engine']} engine
 * @param {string} installed
 */
export function checkEngine(engine, installed) {
  if (engine.name !== 'onnxruntime') {
    const way = engine.name === 'llama.cpp' ? 'compile with --format onnx for this page' : 'this page runs onnxruntime'
    throw new BundleError(`made for ${printable(engine.name)}: ${way}`)
  }
  const below = engine.max !== null && compareVersions(installed, engine.max) >= 0
  if (compareVersions(installed, engine.min) < 0 || below) {
    const wanted = `>=${engine.min}` + (engine.max ? `,<${engine.max}` : '')
    throw new BundleError(`needs onnxruntime${wanted}; this page has ${installed}`)
  }
}

/**
 * A whole number of `group` from 1 to `most`. Throws BundleError naming one that is missing or absurd.
 * @param {Table} group
 * @param {string} key
 * @param {number} most
 * @returns {number}
 */
export function bounded(group, key, most) {
  const value = group[key]
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > most) {
    throw new BundleError(`the manifest has ${key} = ${printable(value)}; 1 to ${most} is possible`)
  }
  return value
}

/**
 * A token's id. Throws BundleError for one that the vocabulary does not have.
 * @param {unknown} value
 * @param {string} what
 * @param {number} vocabulary
 * @returns {number}
 */
export function tokenId(value, what, vocabulary) {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value >= vocabulary) {
    throw new BundleError(`the manifest's ${what} token is ${printable(value)}; an id below ${vocabulary} is needed`)
  }
  return value
}

/**
 * @param {unknown} value
 * @returns {value is Table}
 */
export function isTable(value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** @param {Table} files */
function parseFiles(files) {
  /** @type {Map<string, FileEntry>} */
  const entries = new Map()
  for (const name of Object.keys(files)) {
    checkName(name)
    if (name === MANIFEST || name === MANIFEST_DIGEST) throw new BundleError(`${MANIFEST} lists ${name} among its files`)
    const { bytes, sha256 } = table(files, name)
    if (typeof bytes !== 'number' || !Number.isSafeInteger(bytes) || bytes < 0) {
      throw wrong(`files.${name}.bytes`, bytes, 'a whole number')
    }
    if (typeof sha256 !== 'string' || !SHA256.test(sha256)) {
      throw wrong(`files.${name}.sha256`, sha256, '64 hexadecimal digits')
    }
    entries.set(name, { bytes, sha256 })
  }
  return entries
}

/**
 * @param {Table} values
 * @param {string} key
 * @returns {Table}
 */
function table(values, key) {
  const value = values[key]
  if (!isTable(value)) throw wrong(key, value, 'an object')
  return value
}

/**
 * @param {Table} values
 * @param {string} key
 */
function text(values, key) {
  const value = values[key]
  if (typeof value !== 'string' || value === '') throw wrong(key, value, 'text')
  return value
}

/**
 * @param {Table} values
 * @param {string} key
 * @param {string} place
 */
function version(values, key, place) {
  const value = values[key]
  if (typeof value !== 'string' || !VERSION.test(value)) throw wrong(place, value, 'a version such as 1.23')
  return value
}

/**
 * @param {string} left
 * @param {string} right
 */
function compareVersions(left, right) {
  const [a, b] = [left, right].map((one) => (/^\d+(\.\d+)*/.exec(one)?.[0] ?? '0').split('.').map(Number))
  for (let i = 0; i < Math.max(a?.length ?? 0, b?.length ?? 0); i++) {
    const difference = (a?.[i] ?? 0) - (b?.[i] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

/**
 * @param {string} place
 * @param {unknown} value
 * @param {string} expected
 */
function wrong(place, value, expected) {
  return new BundleError(`${MANIFEST}: ${printable(place)} is ${printable(value)}, expected ${expected}`)
}
