// Text to tokens and tokens to bytes, from a bundle's tokenizer.json, through Hugging Face's tokenizers in JavaScript.
//
// Knows how tokens spell bytes: byte-level vocabularies, where a character stands for each byte, and SentencePiece's, with
// U+2581 for a space and <0x0A> for a byte.

import { BundleError, printable } from '../errors.js'
import { isTable, parseObject, tokenId } from '../bundle/manifest.js'

/** @typedef {{ encode: (text: string, options: { add_special_tokens: boolean }) => { ids: number[] } }} Encoder */
/** @typedef {new (tokenizer: object, config: object) => Encoder} EncoderClass of @huggingface/tokenizers */

const MAX_TOKENIZER_BYTES = 64 << 20
const SPACE = '\u2581'

export class Vocabulary {
  #encoder
  #plainEncoder
  /** @type {Map<number, string>} */
  #texts = new Map()
  /** @type {Map<number, string>} */
  #added = new Map()
  #byteLevel
  /** @type {Map<string, number>} spelling to id of the tokens that steer and are not text */
  controls = new Map()

  /**
   * Throws BundleError where either is damaged.
   * @param {EncoderClass} Encoder
   * @param {Uint8Array} data a tokenizer.json
   * @param {Record<string, unknown>} generation from the manifest: `bos`, `adds_bos` and `ends`
   * @param {number} size how many tokens the model has
   */
  constructor(Encoder, data, generation, size) {
    const json = parseObject(data, 'tokenizer.json', MAX_TOKENIZER_BYTES)
    const added = Array.isArray(json.added_tokens) ? json.added_tokens.filter(isTable) : []
    const model = isTable(json.model) ? json.model : {}
    if (!isTable(model.vocab)) throw new BundleError('tokenizer.json has no table of tokens that this page knows')
    for (const [text, id] of Object.entries(model.vocab)) this.#texts.set(tokenId(id, printable(text), 1 << 22), text)
    for (const { id, content, special } of added) {
      const text = typeof content === 'string' ? content : ''
      this.#added.set(tokenId(id, printable(text), 1 << 22), text)
      if (special === true && text.trim()) this.controls.set(text, Number(id))
    }
    this.#byteLevel = JSON.stringify(json.decoder ?? null).includes('"ByteLevel"')
    try {
      this.#encoder = new Encoder(json, {})
      const plain = { ...json, added_tokens: added.filter(({ special }) => special !== true) }
      this.#plainEncoder = new Encoder(plain, {})
    } catch (error) {
      throw new BundleError(`tokenizer.json cannot be read: ${printable(error instanceof Error ? error.message : '')}`)
    }
    const { bos, ends } = generation
    this.size = size
    this.bos = generation.adds_bos === true && bos != null ? tokenId(bos, 'bos', size) : null
    this.ends = new Set((Array.isArray(ends) ? ends : []).map((id) => tokenId(id, 'end', size)))
  }

  /**
   * @param {string} text
   * @param {boolean} special whether control tokens that are spelt in it become those tokens, or stay text
   */
  encode(text, special) {
    if (!text) return []
    const encoder = special ? this.#encoder : this.#plainEncoder
    return encoder.encode(text, { add_special_tokens: false }).ids.filter((id) => id < this.size)
  }

  /**
   * What a token adds to the text; nothing for one that steers.
   * @param {number} token
   * @returns {Uint8Array}
   */
  bytes(token) {
    const added = this.#added.get(token)
    if (added !== undefined) return this.controls.has(added) ? new Uint8Array(0) : utf8(added)
    const text = this.#texts.get(token) ?? ''
    return this.#byteLevel ? byteLevelBytes(text) : sentencePieceBytes(text)
  }
}

/** GPT-2's table: printable bytes stand for themselves, the others for U+0100 and up, in order. */
const BYTE_OF = byteTable()

function byteTable() {
  /** @type {Map<string, number>} */
  const table = new Map()
  let others = 0
  for (let byte = 0; byte < 256; byte++) {
    const plain = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad)
    table.set(String.fromCodePoint(plain ? byte : 0x100 + others++), byte)
  }
  return table
}

/** @param {string} text */
function byteLevelBytes(text) {
  const bytes = Array.from(text, (character) => BYTE_OF.get(character))
  // A token that was put in as plain text has characters that stand for no byte.
  return bytes.includes(undefined) ? utf8(text) : Uint8Array.from(bytes, Number)
}

/** @param {string} text */
function sentencePieceBytes(text) {
  const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(text)?.[1]
  return byte ? Uint8Array.of(parseInt(byte, 16)) : utf8(text.replaceAll(SPACE, ' '))
}

/** @param {string} text */
function utf8(text) {
  return new TextEncoder().encode(text)
}
