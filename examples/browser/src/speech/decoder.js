// Decoding one encoded piece until the result can be believed: greedily, then by sampling at rising temperatures.
//
// The rules, thresholds and random numbers are the device's (runtime/sottovoce/decoding/), so that the text is.

import { Grammar, logSum } from './grammar.js'
import { compressionRatio, loopStart, tooFast } from './guards.js'
import { Pcg64 } from '../random.js'

/** @typedef {import('./tokens.js').Steering} Steering */
/** @typedef {import('./tokens.js').TokenTable} TokenTable */
/** @typedef {import('../engines/whisper.js').Sequence} Sequence */

const TEMPERATURES = [0, 0.2, 0.4, 0.6, 0.8, 1]
const COMPRESSION_RATIO = 2.4
const LOG_PROBABILITY = -1
const NO_SPEECH = 0.6
const CHECK_LOOPS_EVERY = 4 // tokens

/**
 * @typedef {object} Attempt
 * @property {number[]} tokens without the end
 * @property {number} logProbability the mean of the tokens chosen, the end among them
 * @property {boolean} looped
 * @property {number} ratio how well zlib compresses the text
 * @property {boolean} silent no speech, as far as the model can tell
 * @property {boolean} broken looping, too repetitive, or more than can be said in the time
 * @property {boolean} failed broken or improbable: worth another try
 */
/**
 * @typedef {object} Limits what one piece may hold
 * @property {number} tokens
 * @property {number} seconds of audio
 * @property {number} name a number that gives the piece its own randomness
 */

export class Decoder {
  #tokens
  #table
  #grammar

  /**
   * @param {Steering} tokens
   * @param {TokenTable} table
   */
  constructor(tokens, table) {
    this.#tokens = tokens
    this.#table = table
    this.#grammar = new Grammar(tokens)
  }

  /**
   * @param {Sequence} sequence over the piece's audio
   * @param {number[]} prompt
   * @param {Limits} limits
   * @returns {Promise<Attempt>}
   */
  async decode(sequence, prompt, limits) {
    /** @type {Attempt[]} */
    const tried = []
    for (const temperature of TEMPERATURES) {
      const attempt = await this.#attempt(sequence, prompt, limits, temperature)
      if (!attempt.failed) return attempt
      tried.push(attempt)
    }
    return best(tried)
  }

  /**
   * @param {Sequence} sequence
   * @param {number[]} prompt
   * @param {Limits} limits
   * @param {number} temperature
   */
  async #attempt(sequence, prompt, limits, temperature) {
    const random = temperature ? new Pcg64(1000 * limits.name + Math.round(100 * temperature)) : null
    sequence.restart()
    const [first, second] = await sequence.run(prompt, [0, prompt.length - 1])
    if (!first || !second) throw new Error('two rows of logits were asked for')
    const noSpeech = Math.exp((first[this.#tokens.noSpeech] ?? 0) - logSum(first))
    /** @type {number[]} */
    let tokens = []
    /** @type {number[]} */
    let logProbabilities = []
    let logits = second
    for (;;) {
      this.#grammar.apply(logits, tokens)
      const token = random ? drawn(logits, temperature, random) : likeliest(logits)
      logProbabilities.push((logits[token] ?? 0) - logSum(logits))
      if (token === this.#tokens.end) break
      tokens.push(token)
      if (tokens.length >= limits.tokens) break
      const cut = tokens.length % CHECK_LOOPS_EVERY ? null : loopStart(tokens)
      if (cut !== null) {
        tokens = tokens.slice(0, cut)
        logProbabilities = logProbabilities.slice(0, cut)
        return this.#judge(tokens, logProbabilities, noSpeech, limits.seconds, true)
      }
      const next = (await sequence.run([token], [0]))[0]
      if (!next) throw new Error('a row of logits was asked for')
      logits = next
    }
    return this.#judge(tokens, logProbabilities, noSpeech, limits.seconds, false)
  }

  /**
   * @param {number[]} tokens
   * @param {number[]} logProbabilities
   * @param {number} noSpeech
   * @param {number} seconds
   * @param {boolean} looped
   * @returns {Promise<Attempt>}
   */
  async #judge(tokens, logProbabilities, noSpeech, seconds, looped) {
    const text = this.#table.decode(tokens)
    const ratio = await compressionRatio(text)
    const mean = logProbabilities.reduce((sum, one) => sum + one, 0) / Math.max(1, logProbabilities.length)
    const improbable = mean < LOG_PROBABILITY
    const silent = improbable && noSpeech > NO_SPEECH
    const broken = looped || ratio > COMPRESSION_RATIO || tooFast(text, seconds)
    return { tokens, logProbability: mean, looped, ratio, silent, broken, failed: !silent && (broken || improbable) }
  }
}

/**
 * Of attempts that all failed the likeliest that is not broken. Where all are broken, what came before a loop is kept if
 * it is probable; the rest was not said.
 * @param {Attempt[]} attempts
 * @returns {Attempt}
 */
function best(attempts) {
  const whole = attempts.filter((attempt) => !attempt.broken)
  const pool = whole.length ? whole : attempts
  const found = pool.reduce((a, b) => (b.logProbability > a.logProbability ? b : a))
  const beginsWell = found.looped && found.logProbability >= LOG_PROBABILITY && found.ratio <= COMPRESSION_RATIO
  return { ...found, silent: found.silent || !(whole.length || beginsWell) }
}

/** @param {Float32Array} logits */
function likeliest(logits) {
  let best = 0
  for (let id = 1; id < logits.length; id++) if ((logits[id] ?? 0) > (logits[best] ?? 0)) best = id
  return best
}

/**
 * @param {Float32Array} logits
 * @param {number} temperature
 * @param {Pcg64} random one number is drawn for every token, as on the device
 */
function drawn(logits, temperature, random) {
  const divisor = Math.fround(temperature)
  let best = 0
  let most = -Infinity
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id] ?? 0
    const noise = logit === -Infinity ? random.uniform() : random.gumbel() // one number is drawn in any case
    const score = Math.fround(logit / divisor) + noise
    if (score > most) {
      most = score
      best = id
    }
  }
  return best
}
