// The ids that steer Whisper, and the table from ids to text. Knows no engine.

import { BundleError, InputError, printable } from '../errors.js'
import { isTable, tokenId } from '../bundle/manifest.js'

const MAGIC = [0x53, 0x56, 0x54, 0x4b, 0x31, 0] // "SVTK1\0"
const TIMESTAMP_STEP = 0.02 // seconds between neighbouring timestamp tokens

/**
 * Ids of the tokens that steer decoding, and those never to be chosen; languages in the order of their ids.
 * @typedef {object} Steering
 * @property {number} end
 * @property {number} start
 * @property {number | null} translate
 * @property {number | null} transcribe
 * @property {number} noSpeech
 * @property {number} timestampBegin
 * @property {Map<string, number>} languages empty for a model that knows English alone
 * @property {number[]} suppress
 * @property {number[]} suppressAtBegin
 */

/**
 * From a manifest's `generation`. Throws BundleError where an id is missing or beyond the vocabulary.
 * @param {Record<string, unknown>} generation
 * @param {number} vocabulary
 * @returns {Steering}
 */
export function readSteering(generation, vocabulary) {
  const raw = generation.tokens
  if (!isTable(raw) || !isTable(raw.languages)) {
    throw new BundleError('the manifest has no generation.tokens; compile the bundle again')
  }
  const one = (/** @type {string} */ key) => tokenId(raw[key], key, vocabulary)
  const task = (/** @type {string} */ key) => (raw[key] == null ? null : one(key))
  const many = (/** @type {string} */ key) => {
    const values = generation[key]
    if (!Array.isArray(values)) throw new BundleError(`the manifest's ${key} is not a list of token ids`)
    return values.map((value) => tokenId(value, key, vocabulary))
  }
  const languages = Object.entries(raw.languages).map(([code, value]) => {
    return /** @type {[string, number]} */ ([code, tokenId(value, `language ${printable(code)}`, vocabulary)])
  })
  return {
    end: one('end'),
    start: one('start'),
    translate: task('translate'),
    transcribe: task('transcribe'),
    noSpeech: one('no_speech'),
    timestampBegin: one('timestamp_begin'),
    languages: new Map(languages.sort((a, b) => a[1] - b[1])),
    suppress: many('suppress'),
    suppressAtBegin: many('suppress_at_begin'),
  }
}

/**
 * The tokens that begin a transcript with timestamps. Throws InputError for what the model cannot do.
 * @param {Steering} tokens
 * @param {string} language
 * @param {string} task "transcribe" or "translate"
 */
export function promptOf(tokens, language, task) {
  if (!tokens.languages.size) {
    if (task !== 'transcribe' || language !== 'en') throw new InputError('this model transcribes English, and no more')
    return [tokens.start]
  }
  const code = tokens.languages.get(language)
  if (code === undefined) throw new InputError(`language ${printable(language)} is not one of this model's`)
  const what = task === 'transcribe' ? tokens.transcribe : task === 'translate' ? tokens.translate : null
  if (what === null) throw new InputError(`task ${printable(task)} is not one of this model's`)
  return [tokens.start, code, what]
}

/**
 * Seconds that a timestamp token stands for, from the start of the piece.
 * @param {Steering} tokens
 * @param {number} token
 */
export function secondsOf(tokens, token) {
  return (token - tokens.timestampBegin) * TIMESTAMP_STEP
}

/** The bytes of every token, as they lie in tokens.bin. Ids from `firstSpecial` on stand for no text. */
export class TokenTable {
  #ends
  #body
  #firstSpecial

  /**
   * Throws BundleError for anything but a table of at least `firstSpecial` tokens.
   * @param {Uint8Array<ArrayBuffer>} data the file: magic, count (u32), lengths (u16 each), bytes; little-endian
   * @param {number} firstSpecial
   */
  constructor(data, firstSpecial) {
    const start = MAGIC.length + 4
    if (data.length < start || MAGIC.some((byte, i) => data[i] !== byte)) {
      throw new BundleError('tokens.bin is not a token table; compile the bundle again')
    }
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
    const count = view.getUint32(MAGIC.length, true)
    if (2 * count > data.length - start || count < firstSpecial) {
      throw new BundleError(`tokens.bin claims ${count} tokens in ${data.length} bytes; compile the bundle again`)
    }
    this.#ends = new Uint32Array(count)
    let end = 0
    for (let i = 0; i < count; i++) this.#ends[i] = end += view.getUint16(start + 2 * i, true)
    this.#body = data.subarray(start + 2 * count)
    if (this.#body.length !== end) throw new BundleError('tokens.bin has a wrong length; compile the bundle again')
    this.#firstSpecial = firstSpecial
  }

  /**
   * The text of ordinary tokens; bytes that end inside a character become U+FFFD.
   * @param {Iterable<number>} tokens
   */
  decode(tokens) {
    /** @type {number[]} */
    const bytes = []
    for (const token of tokens) {
      if (token >= this.#firstSpecial) continue
      const start = token ? (this.#ends[token - 1] ?? 0) : 0
      bytes.push(...this.#body.subarray(start, this.#ends[token]))
    }
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(new Uint8Array(bytes))
  }
}
