// Which token comes next, given logits: penalties, temperature, top-k, top-p, min-p, and one random number.
//
// The order and the numbers are the device's (runtime/sottovoce/chat/sampling.py): the same logits, options and seed give
// the same tokens while top-k is used.

import { BundleError, EngineError, InputError, printable } from '../errors.js'
import { isTable } from '../bundle/manifest.js'
import { Pcg64 } from '../random.js'

const GREEDY_BELOW = 1e-3 // a temperature: the likeliest token is taken

/**
 * @typedef {object} Sampling
 * @property {number} temperature divides the logits; 0 takes the likeliest token
 * @property {number} top_p only the likeliest tokens that together have this probability; 1 for all
 * @property {number} top_k only the k likeliest tokens; 0 for all
 * @property {number} min_p only tokens at least this fraction as likely as the likeliest; 0 for all
 * @property {number} presence_penalty taken off the logit of every token that is in the answer
 * @property {number} frequency_penalty the same for every time it is in the answer
 * @property {number} repetition_penalty divides a positive logit, multiplies a negative one, of tokens said before
 */

/** @type {Sampling} */
const DEFAULTS = {
  temperature: 0.7,
  top_p: 0.95,
  top_k: 40,
  min_p: 0.05,
  presence_penalty: 0,
  frequency_penalty: 0,
  repetition_penalty: 1,
}

/** @type {Record<keyof Sampling, [number, number]>} */
const RANGES = {
  temperature: [0, 2],
  top_p: [0, 1],
  top_k: [0, 1_000_000],
  min_p: [0, 1],
  presence_penalty: [-2, 2],
  frequency_penalty: [-2, 2],
  repetition_penalty: [0.1, 10],
}

/**
 * What was given, over what the bundle recommends, over the defaults. Throws BundleError or InputError for a number that
 * makes no sense, by whose fault it is.
 * @param {unknown} recommended the manifest's generation.sampling
 * @param {Partial<Sampling>} given
 * @returns {Sampling}
 */
export function samplingOf(recommended, given) {
  const own = isTable(recommended) ? recommended : {}
  const names = /** @type {(keyof Sampling)[]} */ (Object.keys(RANGES))
  const chosen = { ...DEFAULTS }
  for (const name of names) {
    if (name in own) chosen[name] = checked(own[name], name, BundleError)
    if (given[name] !== undefined) chosen[name] = checked(given[name], name, InputError)
  }
  return chosen
}

export class Sampler {
  #options
  #random
  /** @type {Map<number, number>} how often each token is in the answer */
  #counts = new Map()
  #before

  /**
   * @param {Sampling} options
   * @param {readonly number[]} prompt what the repetition penalty counts as said before
   * @param {number | bigint} seed
   */
  constructor(options, prompt, seed) {
    this.#options = options
    this.#random = new Pcg64(seed)
    this.#before = new Set(options.repetition_penalty === 1 ? [] : prompt)
  }

  /**
   * Count a token as said.
   * @param {number} token
   */
  accept(token) {
    this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1)
    if (this.#options.repetition_penalty !== 1) this.#before.add(token)
  }

  /**
   * One token. Throws EngineError for logits that are not numbers.
   * @param {Float32Array} logits (vocabulary,), which are changed
   */
  choose(logits) {
    this.#penalize(logits)
    const best = likeliest(logits)
    const top = logits[best] ?? NaN
    if (!Number.isFinite(top)) throw new EngineError(`the engine's logits are not numbers (${top}); the bundle may be damaged`)
    const { temperature, top_k, top_p, min_p } = this.#options
    if (temperature < GREEDY_BELOW) return best
    const number = this.#random.uniform()
    // Less likely than e^-40 of the likeliest is never drawn in any life.
    const candidates = top_k ? largest(logits, top_k) : within(logits, top - 40 * temperature)
    const weights = candidates.map((id) => Math.exp(((logits[id] ?? 0) - top) / temperature))
    let kept = min_p ? weights.filter((weight) => weight >= min_p).length : weights.length
    const sums = cumulative(weights)
    if (top_p < 1) kept = Math.min(kept, firstNotBelow(sums, top_p * (sums.at(-1) ?? 0)) + 1)
    const wanted = number * (sums[kept - 1] ?? 0)
    const at = sums.findIndex((sum) => sum > wanted)
    return candidates[Math.min(at < 0 ? kept - 1 : at, kept - 1)] ?? best
  }

  /** @param {Float32Array} logits */
  #penalize(logits) {
    const { repetition_penalty, frequency_penalty, presence_penalty } = this.#options
    for (const id of this.#before) {
      const score = logits[id] ?? 0
      logits[id] = score > 0 ? score / repetition_penalty : score * repetition_penalty
    }
    if (!frequency_penalty && !presence_penalty) return
    for (const [id, count] of this.#counts) {
      logits[id] = (logits[id] ?? 0) - (count * frequency_penalty + presence_penalty)
    }
  }
}

/**
 * @param {unknown} value
 * @param {keyof Sampling} name
 * @param {typeof BundleError | typeof InputError} Fault
 */
function checked(value, name, Fault) {
  const [least, most] = RANGES[name]
  const whole = name !== 'top_k' || Number.isInteger(value)
  if (typeof value !== 'number' || !whole || !(value >= least && value <= most)) {
    throw new Fault(`${name} = ${printable(value)}; ${least} to ${most} is possible`)
  }
  return value
}

/** @param {Float32Array} values */
function likeliest(values) {
  let best = 0
  for (let id = 1; id < values.length; id++) if ((values[id] ?? 0) > (values[best] ?? 0)) best = id
  return best
}

/**
 * The ids of the `count` largest, the largest first, of equal ones the lowest id first.
 * @param {Float32Array} values
 * @param {number} count
 */
function largest(values, count) {
  const found = within(values, -Infinity, count)
  return found.slice(0, count)
}

/**
 * The ids of all values from `bound` on, the largest first. With `count` it is enough to find so many of the largest:
 * whenever twice as many wait they are sorted, and the bound rises.
 * @param {Float32Array} values
 * @param {number} bound
 * @param {number} [count]
 */
function within(values, bound, count = Infinity) {
  const order = (/** @type {number} */ a, /** @type {number} */ b) => (values[b] ?? 0) - (values[a] ?? 0) || a - b
  /** @type {number[]} */
  let found = []
  for (let id = 0; id < values.length; id++) {
    if ((values[id] ?? 0) < bound) continue
    found.push(id)
    if (found.length >= 2 * count) {
      found = found.sort(order).slice(0, count)
      bound = values[found[count - 1] ?? 0] ?? bound
    }
  }
  return found.sort(order)
}

/** @param {number[]} values */
function cumulative(values) {
  let sum = 0
  return values.map((value) => (sum += value))
}

/**
 * @param {number[]} rising
 * @param {number} value
 */
function firstNotBelow(rising, value) {
  const at = rising.findIndex((one) => one >= value)
  return at < 0 ? rising.length - 1 : at
}
