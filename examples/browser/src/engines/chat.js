// A language model's one graph: tokens in, logits out, over one sequence that is remembered. Knows nothing of messages or
// sampling.

import { bounded } from '../bundle/manifest.js'
import { InputError } from '../errors.js'
import { openSession, run, WEIGHTS } from './session.js'

/** @typedef {typeof import('onnxruntime-web')} Ort */
/** @typedef {import('onnxruntime-web').Tensor} Tensor */

const GRAPH = 'model.onnx'
const PART = 64 // tokens a run: a stop is answered after each

export class OnnxChat {
  #ort
  #bundle
  #shape
  /** @type {import('onnxruntime-web').InferenceSession | null} */
  #session = null
  /** @type {Map<string, Tensor>} */
  #past = new Map()
  #length = 0

  /**
   * Throws BundleError for a manifest with a number that is missing or absurd.
   * @param {Ort} ort
   * @param {import('../bundle/bundle.js').Bundle} bundle
   * @param {number} [most] positions there is room for, at most what the bundle was made for
   */
  constructor(ort, bundle, most = 2048) {
    const { model } = bundle.manifest
    this.#ort = ort
    this.#bundle = bundle
    this.#shape = {
      layers: bounded(model, 'layers', 256),
      heads: bounded(model, 'kv_heads', 256),
      headWidth: bounded(model, 'head_width', 1024),
    }
    this.vocabulary = bounded(model, 'vocab_size', 1 << 20)
    this.context = Math.min(most, bounded(model, 'context', 1 << 20))
  }

  /** Open the session. Throws BundleError for damaged files, EngineError where ONNX Runtime refuses the graph. */
  async load() {
    if (this.#session) return
    this.#session = await openSession(this.#ort, this.#bundle, GRAPH, await this.#bundle.read(WEIGHTS))
    this.#forget()
  }

  async close() {
    await this.#session?.release()
    this.#session = null
    this.#past.clear()
  }

  /** Positions evaluated so far. */
  get length() {
    return this.#length
  }

  /**
   * Forget all positions from `length` on.
   * @param {number} length
   */
  truncate(length) {
    this.#length = Math.min(this.#length, length)
    if (!this.#length) this.#forget()
  }

  /**
   * Append tokens to the sequence; the logits (vocabulary,) after the last of them. What was run stays where `stopped`
   * ends it between two parts; null then.
   *
   * Throws InputError where the context would be exceeded, EngineError where the engine fails.
   * @param {readonly number[]} tokens
   * @param {() => Promise<boolean>} [stopped]
   * @returns {Promise<Float32Array | null>}
   */
  async evaluate(tokens, stopped = async () => false) {
    if (!tokens.length || this.#length + tokens.length > this.context) {
      throw new InputError(`${this.#length} + ${tokens.length} tokens; the context is ${this.context}`)
    }
    await this.load()
    /** @type {Float32Array | null} */
    let logits = null
    for (let start = 0; start < tokens.length; start += PART) {
      if (await stopped()) return null
      logits = await this.#run(tokens.slice(start, start + PART))
    }
    return logits
  }

  /** @param {readonly number[]} tokens */
  async #run(tokens) {
    if (!this.#session) throw new Error('load has not opened the session')
    const { Tensor } = this.#ort
    const total = this.#length + tokens.length
    const names = [...this.#past.keys()]
    const feeds = {
      ...Object.fromEntries(names.map((name) => [`past_${name}`, /** @type {Tensor} */ (this.#past.get(name))])),
      tokens: new Tensor('int64', BigInt64Array.from(tokens, BigInt), [1, tokens.length]),
      total_length: new Tensor('int32', Int32Array.of(total), [1]),
      logit_positions: new Tensor('int64', BigInt64Array.of(BigInt(tokens.length - 1)), [1]),
    }
    const found = await run(this.#session, feeds, ['logits', ...names.map((name) => `present_${name}`)])
    for (const name of names) {
      const present = found[`present_${name}`]
      if (present) this.#past.set(name, present)
    }
    this.#length = total
    return /** @type {Float32Array} */ (found.logits?.data)
  }

  #forget() {
    const { layers, heads, headWidth } = this.#shape
    for (let i = 0; i < layers; i++) {
      for (const kind of ['key', 'value']) {
        const empty = new this.#ort.Tensor('float32', new Float32Array(0), [1, heads, 0, headWidth])
        this.#past.set(`${kind}_${i}`, empty)
      }
    }
    this.#length = 0
  }
}
