// Which tokens may come next: Whisper's rules for timestamps (Radford et al. 2022, section 4.5), as on the device.
//
// Timestamps come in pairs and never go back, the first is within a second, and one is forced when all of them together
// are likelier than any word. Knows no engine.

/** @typedef {import('./tokens.js').Steering} Steering */

const MAX_FIRST = 50 // timestamp tokens: the first is within a second
const NEVER = -Infinity

export class Grammar {
  #tokens
  #forbidden
  #atBegin

  /** @param {Steering} tokens */
  constructor(tokens) {
    this.#tokens = tokens
    const forbidden = new Set(tokens.suppress)
    // Everything from <|startoftranscript|> to <|notimestamps|> steers; none of it is ever transcript.
    for (let id = tokens.end + 1; id < tokens.timestampBegin; id++) forbidden.add(id)
    forbidden.delete(tokens.end)
    this.#forbidden = [...forbidden]
    this.#atBegin = [...tokens.suppressAtBegin, tokens.end]
  }

  /**
   * Forbids tokens by setting their logits to minus infinity, in place.
   * @param {Float32Array} logits (vocabulary,)
   * @param {readonly number[]} done the tokens so far
   */
  apply(logits, done) {
    const { timestampBegin: begin, end } = this.#tokens
    for (const id of this.#forbidden) logits[id] = NEVER
    const last = done.at(-1)
    if (last === undefined) {
      for (const id of this.#atBegin) logits[id] = NEVER
      logits.fill(NEVER, 0, begin)
      logits.fill(NEVER, begin + MAX_FIRST + 1)
      return
    }
    const before = done.at(-2)
    const closed = last >= begin && before !== undefined && before < begin
    if (closed) logits.fill(NEVER, 0, end) // the next segment opens, or the transcript ends
    else if (last >= begin) logits.fill(NEVER, begin) // an opened segment: words come
    const earlier = done.reduce((most, token) => (token >= begin ? Math.max(most, token) : most), begin)
    logits.fill(NEVER, begin, closed ? earlier : earlier + 1)
    preferTimestamp(logits, begin)
  }
}

/**
 * @param {Float32Array} logits
 * @param {number} begin the first timestamp
 */
function preferTimestamp(logits, begin) {
  const words = largest(logits.subarray(0, begin))
  const times = logits.subarray(begin)
  if (Number.isFinite(largest(times)) && logSum(times) > words) logits.fill(NEVER, 0, begin)
}

/** @param {Float32Array} values */
function largest(values) {
  return values.reduce((most, value) => (value > most ? value : most), NEVER)
}

/**
 * The logarithm of the sum of exponentials.
 * @param {Float32Array} scores
 */
export function logSum(scores) {
  const top = largest(scores)
  let sum = 0
  for (const score of scores) sum += Math.exp(score - top)
  return top + Math.log(sum)
}

/**
 * The probability of each language, likeliest first.
 * @param {Float32Array} logits (vocabulary,) after <|startoftranscript|>
 * @param {Steering} tokens
 * @returns {Map<string, number>}
 */
export function languageProbabilities(logits, tokens) {
  const scores = [...tokens.languages].map(([code, id]) => /** @type {[string, number]} */ ([code, logits[id] ?? NEVER]))
  const top = Math.max(...scores.map(([, score]) => score))
  const total = scores.reduce((sum, [, score]) => sum + Math.exp(score - top), 0)
  scores.sort((a, b) => b[1] - a[1])
  return new Map(scores.map(([code, score]) => [code, Math.exp(score - top) / total]))
}
