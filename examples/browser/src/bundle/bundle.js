// An opened bundle: what it holds, where each byte lies, and whether it is still whole.
//
// Opening reads the manifest alone, against its own digest; every other file's SHA-256 is checked when it is read. Nothing
// in a bundle is executed but its chat template, by an interpreter of its own (chat/template.js).

import { BundleError } from '../errors.js'
import { readLayout } from './archive.js'
import { MANIFEST, MANIFEST_DIGEST, MAX_MANIFEST_BYTES, parseManifest } from './manifest.js'

/** @typedef {import('./manifest.js').Manifest} Manifest */

export class Bundle {
  /** @type {Blob} */
  #file
  /** @type {Map<string, { offset: number, size: number }>} */
  #places
  /** @type {Manifest} */
  manifest

  /**
   * Made by `openBundle`.
   * @param {Blob} file
   * @param {Manifest} manifest
   * @param {Map<string, { offset: number, size: number }>} places
   */
  constructor(file, manifest, places) {
    this.#file = file
    this.#places = places
    this.manifest = manifest
  }

  /** Bytes of the whole file. */
  get size() {
    return this.#file.size
  }

  /** @param {string} name */
  has(name) {
    return this.manifest.files.has(name)
  }

  /**
   * All of `name`, its SHA-256 checked. Throws BundleError when it is missing or damaged.
   * @param {string} name
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  async read(name) {
    const entry = this.manifest.files.get(name)
    const place = this.#places.get(name)
    if (!entry || !place) throw new BundleError(`the bundle has no file ${name}`)
    const data = await slice(this.#file, place)
    const found = await sha256(data)
    if (found !== entry.sha256) {
      throw new BundleError(`${name} is damaged: its SHA-256 is ${found}, expected ${entry.sha256}`)
    }
    return data
  }

  /**
   * The UTF-8 text of `name`.
   * @param {string} name
   */
  async readText(name) {
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(await this.read(name))
    } catch (error) {
      if (error instanceof TypeError) throw new BundleError(`${name} is not UTF-8 text`)
      throw error
    }
  }
}

/**
 * Reads the layout and the manifest. Throws BundleError when anything about their shape is wrong.
 * @param {Blob} file
 * @returns {Promise<Bundle>}
 */
export async function openBundle(file) {
  const placed = new Map((await readLayout(file)).map((item) => [item.name, { offset: item.data, size: item.size }]))
  const [manifestAt, digestAt] = [placed.get(MANIFEST), placed.get(MANIFEST_DIGEST)]
  if (!manifestAt || !digestAt) throw new BundleError(`not a bundle: it has no ${MANIFEST} or no ${MANIFEST_DIGEST}`)
  if (Math.max(manifestAt.size, digestAt.size) > MAX_MANIFEST_BYTES) throw new BundleError('its manifest is too large')
  const data = await slice(file, manifestAt)
  const digest = new TextDecoder().decode(await slice(file, digestAt))
  const found = await sha256(data)
  if (digest !== `${found}\n`) {
    throw new BundleError(`${MANIFEST} or ${MANIFEST_DIGEST} is damaged: the SHA-256 is ${found}, which is not the one noted`)
  }
  const manifest = parseManifest(data)
  placed.delete(MANIFEST)
  placed.delete(MANIFEST_DIGEST)
  for (const name of placed.keys()) {
    if (!manifest.files.has(name)) throw new BundleError(`holds ${name}, which its manifest does not name`)
  }
  for (const [name, entry] of manifest.files) {
    const size = placed.get(name)?.size
    if (size === undefined) throw new BundleError(`${name} is missing`)
    if (size !== entry.bytes) throw new BundleError(`${name} is damaged: it has ${size} bytes, expected ${entry.bytes}`)
  }
  return new Bundle(file, manifest, placed)
}

/**
 * @param {Blob} file
 * @param {{ offset: number, size: number }} place
 */
async function slice(file, { offset, size }) {
  return new Uint8Array(await file.slice(offset, offset + size).arrayBuffer())
}

/**
 * In lower-case hexadecimal.
 * @param {Uint8Array<ArrayBuffer>} data
 */
async function sha256(data) {
  if (!globalThis.crypto?.subtle) {
    throw new BundleError('this page cannot check files here; open it over https, or from http://localhost')
  }
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', data))
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('')
}
