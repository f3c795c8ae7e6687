// Audio in, segments out: the speech bundle opened, and the order in which its parts are asked.
//
// What it makes of a recording is what `sottovoce transcribe` makes of it with its defaults: the same pieces, rules and
// second looks. Left out here: beams, prompts of earlier text, times of words, batches (a device decodes up to eight
// pieces at once; rows do not influence each other).

import { BundleError, printable } from '../errors.js'
import { OnnxWhisper } from '../engines/whisper.js'
import { pieces, WANTED } from './chunking.js'
import { Decoder } from './decoder.js'
import { languageProbabilities } from './grammar.js'
import { firstGroup, Piece } from './pieces.js'
import { cutSegments } from './segments.js'
import { promptOf, readSteering, TokenTable } from './tokens.js'
import { SAMPLE_RATE, speechProbabilities, speechSpans } from './vad.js'

/** @typedef {import('../bundle/bundle.js').Bundle} Bundle */
/** @typedef {typeof import('onnxruntime-web')} Ort */
/** @typedef {{ start: number, end: number, text: string }} Segment times in seconds from the start of the recording */
/** @typedef {{ language?: string | null, task?: string }} Options language null: heard from the audio */
/**
 * @typedef {object} Listener told as things become known; `progress` is the share of the recording that is done
 * @property {(language: string, probability: number) => void} [language]
 * @property {(segment: Segment) => void} [segment]
 * @property {(share: number) => void} [progress]
 * @property {() => Promise<boolean>} [stopped] asked before each piece; true ends the transcript there
 */

const VAD = 'vad.onnx'
const TOKENS = 'tokens.bin'
const MAX_LOOKS = 4

export class Transcriber {
  #ort
  #engine
  #tokens
  #table
  #decoder
  #vad

  /**
   * Made by `openTranscriber`.
   * @param {Ort} ort
   * @param {OnnxWhisper} engine
   * @param {import('./tokens.js').Steering} tokens
   * @param {TokenTable} table
   * @param {import('onnxruntime-web').InferenceSession | null} vad
   */
  constructor(ort, engine, tokens, table, vad) {
    this.#ort = ort
    this.#engine = engine
    this.#tokens = tokens
    this.#table = table
    this.#decoder = new Decoder(tokens, table)
    this.#vad = vad
  }

  /** Codes of the languages the model knows; only "en" for an English-only model. */
  get languages() {
    return this.#tokens.languages.size ? [...this.#tokens.languages.keys()] : ['en']
  }

  /**
   * @param {Float32Array} samples (n,) mono at 16 kHz, full scale 1
   * @param {Options} [options]
   * @param {Listener} [listener]
   * @returns {Promise<{ segments: Segment[], language: string }>}
   */
  async transcribe(samples, { language = null, task = 'transcribe' } = {}, listener = {}) {
    if (language !== null) promptOf(this.#tokens, language, task) // told before anything is computed
    const waiting = (await this.#cut(samples)).map((span) => new Piece(samples.subarray(span.start, span.end), span.start))
    /** @type {Segment[]} */
    const segments = []
    /** @type {import('../engines/whisper.js').Sequence[]} */
    const begun = []
    let spoken = language ?? 'en'
    if (language === null && this.#tokens.languages.size && waiting.length) {
      for (const piece of waiting.slice(0, firstGroup(waiting, this.#engine.bytesPerSecond))) {
        begun.push(await this.#engine.start(piece.padded()))
      }
      spoken = await this.#hear(begun, listener)
    }
    const prompt = promptOf(this.#tokens, spoken, task)
    for (const piece of waiting) {
      if (await listener.stopped?.()) break
      for (const segment of await this.#decode(piece, prompt, begun.shift())) {
        segments.push(segment)
        listener.segment?.(segment)
      }
      listener.progress?.((piece.start + piece.samples.length) / samples.length)
    }
    return { segments, language: spoken }
  }

  async close() {
    await this.#engine.close()
    await this.#vad?.release()
  }

  /** @param {Float32Array} samples */
  async #cut(samples) {
    if (!samples.length) return []
    if (!this.#vad) return pieces([{ start: 0, end: samples.length }], new Float32Array(0))
    const probabilities = await speechProbabilities(this.#ort, this.#vad, samples)
    return pieces(speechSpans(probabilities, samples.length), probabilities)
  }

  /**
   * The language that the first pieces share: one token's step tells it for each.
   * @param {import('../engines/whisper.js').Sequence[]} sequences
   * @param {Listener} listener
   */
  async #hear(sequences, listener) {
    /** @type {Map<string, number>} */
    const totals = new Map()
    for (const sequence of sequences) {
      const [logits] = await sequence.run([this.#tokens.start], [0])
      if (!logits) throw new Error('a row of logits was asked for')
      for (const [code, share] of languageProbabilities(logits, this.#tokens)) {
        totals.set(code, (totals.get(code) ?? 0) + share / sequences.length)
      }
    }
    const [code, probability] = [...totals].reduce((a, b) => (b[1] > a[1] ? b : a))
    listener.language?.(code, probability)
    return code
  }

  /**
   * Segments of a piece; what is left of it after a transcript that stops early is decoded as a piece of its own.
   * @param {Piece} piece
   * @param {number[]} prompt
   * @param {import('../engines/whisper.js').Sequence} [begun]
   */
  async #decode(piece, prompt, begun) {
    /** @type {Segment[]} */
    const segments = []
    let current = piece
    let sequence = begun ?? (await this.#engine.start(piece.padded()))
    for (let look = 0; ; look++) {
      const limits = { tokens: current.limit, seconds: current.seconds, name: current.start }
      const attempt = await this.#decoder.decode(sequence, prompt, limits)
      if (attempt.silent) break
      const cuts = cutSegments(attempt.tokens, this.#tokens, current.heard)
      for (const cut of cuts) {
        const text = this.#table.decode(cut.tokens)
        if (text.trim()) segments.push({ start: current.time(cut.start), end: current.time(cut.end), text })
      }
      const last = cuts.at(-1)
      const rest = last?.closed ? current.after(last.end) : null
      if (!rest || look === MAX_LOOKS) break
      current = rest
      sequence = await this.#engine.start(rest.padded())
    }
    return segments
  }
}

/**
 * Throws BundleError for a bundle that is damaged, made for another task, or beyond this page.
 * @param {Ort} ort
 * @param {Bundle} bundle
 * @returns {Promise<Transcriber>}
 */
export async function openTranscriber(ort, bundle) {
  const { task, family, generation } = bundle.manifest
  if (task !== 'transcribe' || family !== 'whisper') {
    throw new BundleError(`a bundle for ${printable(task)} (${printable(family)}); a whisper that transcribes is needed`)
  }
  const engine = new OnnxWhisper(ort, bundle)
  const tokens = readSteering(generation, engine.shape.vocabulary)
  const table = new TokenTable(await bundle.read(TOKENS), tokens.end)
  await engine.load()
  const vad = bundle.has(VAD) ? await engine.openPlain(VAD) : null
  return new Transcriber(ort, engine, tokens, table, vad)
}

export { SAMPLE_RATE, WANTED }
