// Whisper's two graphs: samples to encoded audio, and tokens to logits over it. Inputs and outputs are in
// docs/devices.md. Knows nothing of text, rules or segments.

import { bounded } from '../bundle/manifest.js'
import { openSession, run, WEIGHTS } from './session.js'

/** @typedef {typeof import('onnxruntime-web')} Ort */
/** @typedef {import('onnxruntime-web').Tensor} Tensor */
/** @typedef {import('onnxruntime-web').InferenceSession} Session */

const ENCODER = 'encoder.onnx'
const DECODER = 'decoder.onnx'
const MIN_SAMPLES = 400 // the spectrogram reflects 200 samples at the start; shorter audio is followed by silence

export class OnnxWhisper {
  #ort
  #bundle
  /** @type {Session | null} */
  #encoder = null
  /** @type {Session | null} */
  #decoder = null

  /**
   * Throws BundleError for a manifest with a number that is missing or absurd.
   * @param {Ort} ort
   * @param {import('../bundle/bundle.js').Bundle} bundle
   */
  constructor(ort, bundle) {
    const { model, audio } = bundle.manifest
    this.#ort = ort
    this.#bundle = bundle
    this.shape = {
      layers: bounded(model, 'decoder_layers', 256),
      heads: bounded(model, 'decoder_heads', 256),
      headWidth: bounded(model, 'head_width', 1024),
      vocabulary: bounded(model, 'vocab_size', 1 << 20),
      frameSamples: bounded(audio, 'frame_samples', 1 << 12),
      maxFrames: bounded(audio, 'max_frames', 1 << 14),
    }
  }

  /** Open both sessions. Throws BundleError for damaged files, EngineError where ONNX Runtime refuses one. */
  async load() {
    if (this.#decoder) return
    const weights = await this.#bundle.read(WEIGHTS)
    this.#encoder = await openSession(this.#ort, this.#bundle, ENCODER, weights)
    this.#decoder = await openSession(this.#ort, this.#bundle, DECODER, weights)
  }

  /**
   * A graph of the bundle that has no weights of its own file.
   * @param {string} name
   */
  openPlain(name) {
    return openSession(this.#ort, this.#bundle, name, null)
  }

  async close() {
    await this.#encoder?.release()
    await this.#decoder?.release()
    this.#encoder = this.#decoder = null
  }

  /** Memory that a second of encoded audio holds. */
  get bytesPerSecond() {
    const { layers, heads, headWidth, frameSamples } = this.shape
    return Math.floor(16000 / frameSamples) * 2 * layers * heads * headWidth * 4
  }

  /**
   * Encode a clip.
   * @param {Float32Array} samples (n,) at 16 kHz, at most 30 s
   * @returns {Promise<Sequence>}
   */
  async start(samples) {
    await this.load()
    if (!this.#encoder || !this.#decoder) throw new Error('load has not opened the sessions')
    const kept = samples.subarray(0, this.shape.maxFrames * this.shape.frameSamples)
    const audio = new Float32Array(Math.max(kept.length, MIN_SAMPLES))
    audio.set(kept)
    const encoded = await run(this.#encoder, { audio: new this.#ort.Tensor('float32', audio, [1, audio.length]) })
    return new Sequence(this.#ort, this.#decoder, encoded, this.shape)
  }
}

/** Tokens fed over one clip's audio. The caches grow with them: the graph gives back what it is given, and more. */
export class Sequence {
  #ort
  #decoder
  #encoded
  #shape
  #length = 0
  /** @type {Record<string, Tensor>} */
  #past = {}

  /**
   * @param {Ort} ort
   * @param {Session} decoder
   * @param {Record<string, Tensor>} encoded the encoder's outputs, which are inputs of the decoder by the same names
   * @param {OnnxWhisper['shape']} shape
   */
  constructor(ort, decoder, encoded, shape) {
    this.#ort = ort
    this.#decoder = decoder
    this.#encoded = encoded
    this.#shape = shape
    this.restart()
  }

  /** Forget the tokens fed so far; the audio stays. */
  restart() {
    this.#length = 0
    this.#past = {}
    for (const name of this.#cacheNames()) {
      this.#past[`past_${name}`] = this.#float(new Float32Array(0), [1, this.#shape.heads, 0, this.#shape.headWidth])
    }
  }

  /**
   * Feed tokens; logits (vocabulary,) after those at `positions` of them.
   * @param {number[]} tokens
   * @param {number[]} positions
   * @returns {Promise<Float32Array[]>}
   */
  async run(tokens, positions) {
    this.#length += tokens.length
    const wanted = ['logits', ...this.#cacheNames().map((name) => `present_${name}`)]
    const feeds = {
      ...this.#encoded,
      ...this.#past,
      tokens: this.#int64(tokens, [1, tokens.length]),
      total_length: new this.#ort.Tensor('int32', Int32Array.of(this.#length), [1]),
      logit_positions: this.#int64(positions, [positions.length]),
    }
    const found = await run(this.#decoder, feeds, wanted)
    for (const name of this.#cacheNames()) this.#past[`past_${name}`] = this.#output(found, `present_${name}`)
    const logits = /** @type {Float32Array} */ (this.#output(found, 'logits').data)
    const size = this.#shape.vocabulary
    return positions.map((_, row) => logits.subarray(row * size, (row + 1) * size))
  }

  #cacheNames() {
    return Array.from({ length: this.#shape.layers }, (_, i) => [`key_${i}`, `value_${i}`]).flat()
  }

  /**
   * @param {Record<string, Tensor>} found
   * @param {string} name
   */
  #output(found, name) {
    const value = found[name]
    if (!value) throw new Error(`the decoder has no output ${name}`)
    return value
  }

  /**
   * @param {number[]} values
   * @param {number[]} dims
   */
  #int64(values, dims) {
    return new this.#ort.Tensor('int64', BigInt64Array.from(values, BigInt), dims)
  }

  /**
   * @param {Float32Array} values
   * @param {number[]} dims
   */
  #float(values, dims) {
    return new this.#ort.Tensor('float32', values, dims)
  }
}
