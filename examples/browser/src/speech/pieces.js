// One piece of a recording: what is put before it, how much it may say, and times in it. Numbers are the device's
// (runtime/sottovoce/pieces.py).

import { SAMPLE_RATE } from './vad.js'

const LEAD = SAMPLE_RATE / 10 // samples of silence before what has nothing before it: Whisper loses a first consonant
const MIN_GAP = 1.5 // seconds of a piece after its last word that are worth a second look
const TOKENS_A_SECOND = 25
const TOKENS_TO_SPARE = 20
const MAX_TOKENS = 224
const CROSS_BYTES = 40 << 20 // of encoded audio that the device decodes together

export class Piece {
  /**
   * @param {Float32Array} samples (n,) at 16 kHz, at most 29 s
   * @param {number} start of the first of them in the recording
   */
  constructor(samples, start) {
    this.samples = samples
    this.start = start
  }

  get seconds() {
    return this.samples.length / SAMPLE_RATE
  }

  /** Seconds that the encoder hears, the lead among them. */
  get heard() {
    return (this.#lead + this.samples.length) / SAMPLE_RATE
  }

  /** Tokens that can be said in it. */
  get limit() {
    return Math.min(MAX_TOKENS, Math.round(this.seconds * TOKENS_A_SECOND) + TOKENS_TO_SPARE)
  }

  /** The samples as the encoder hears them. */
  padded() {
    const out = new Float32Array(this.#lead + this.samples.length)
    out.set(this.samples, this.#lead)
    return out
  }

  /**
   * A time in the padded samples as seconds from the start of the recording, never outside this piece.
   * @param {number} seconds
   */
  time(seconds) {
    const inside = Math.min(Math.max(seconds - this.#lead / SAMPLE_RATE, 0), this.seconds)
    return Math.round((inside + this.start / SAMPLE_RATE) * 1000) / 1000
  }

  /**
   * What follows a time in the padded samples, if it is worth a second look.
   * @param {number} seconds
   * @returns {Piece | null}
   */
  after(seconds) {
    const at = Math.max(0, Math.round(seconds * SAMPLE_RATE) - this.#lead)
    const rest = this.samples.subarray(at)
    // The whole piece again would only be heard as before.
    return at > 0 && rest.length > MIN_GAP * SAMPLE_RATE ? new Piece(rest, this.start + at) : null
  }

  get #lead() {
    return Math.max(0, LEAD - this.start)
  }
}

/**
 * How many of the first pieces the device would decode together: its language is that of all of these.
 * @param {Piece[]} pieces
 * @param {number} bytesPerSecond of encoded audio
 */
export function firstGroup(pieces, bytesPerSecond) {
  let longest = 0
  for (const [count, piece] of pieces.slice(0, 8).entries()) {
    longest = Math.max(longest, piece.seconds)
    if (count && longest * (count + 1) * bytesPerSecond > CROSS_BYTES) return count
  }
  return Math.min(8, pieces.length)
}
