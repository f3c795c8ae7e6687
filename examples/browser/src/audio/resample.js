// Changes the sample rate of one channel as the device does (runtime/sottovoce/resample.py): a sinc in a Kaiser window
// (J. F. Kaiser 1974), flat to 0.9 of the lower of the two Nyquist frequencies and 90 dB down at 1.0 of it.

const STOP_BAND_DB = 100
const PASS_EDGE = 0.9 // of the lower Nyquist frequency
const STOP_EDGE = 1
const BETA = 0.1102 * (STOP_BAND_DB - 8.7)
// Half the kernel's width, in samples of the lower rate (Kaiser's estimate of a filter's order, halved).
const ZERO_CROSSINGS = (STOP_BAND_DB - 7.95) / (2.285 * Math.PI * (STOP_EDGE - PASS_EDGE)) / 2
const MAX_PHASES = 640 // 11,025 Hz to 16,000 Hz has so many

/**
 * Whether the two rates have a ratio for which a table is worth its memory.
 * @param {number} rateIn Hz
 * @param {number} rateOut Hz
 */
export function canResample(rateIn, rateOut) {
  return rateIn >= 1000 && rateIn <= 768000 && rateOut / divisor(rateIn, rateOut) <= MAX_PHASES
}

/**
 * Samples (n,) at `rateIn` Hz to (ceil(n * rateOut / rateIn),) at `rateOut` Hz.
 * @param {Float32Array} samples
 * @param {number} rateIn
 * @param {number} rateOut
 * @returns {Float32Array}
 */
export function resample(samples, rateIn, rateOut) {
  if (rateIn === rateOut) return samples
  const common = divisor(rateIn, rateOut)
  const up = rateOut / common
  const down = rateIn / common
  const scale = Math.min(1, up / down)
  const half = Math.ceil(ZERO_CROSSINGS / scale)
  const phases = Array.from({ length: up }, (_, i) => phase(((i * down) % up) / up, half, scale))
  const out = new Float32Array(Math.ceil((samples.length * up) / down))
  for (let i = 0; i < out.length; i++) {
    const first = Math.floor((i * down) / up) - half
    const weights = phases[i % up] ?? new Float32Array(0)
    let sum = 0
    const from = Math.max(0, -first)
    const to = Math.min(weights.length, samples.length - first)
    for (let tap = from; tap < to; tap++) sum += (weights[tap] ?? 0) * (samples[first + tap] ?? 0)
    out[i] = sum
  }
  return out
}

/**
 * The kernel for outputs that lie `rest` of a sample after an input: 2 * half + 1 weights, whose sum is 1, so that a
 * constant stays that constant.
 * @param {number} rest 0 up to, not including, 1
 * @param {number} half input samples on either side
 * @param {number} scale the lower rate over the input's
 */
function phase(rest, half, scale) {
  const cutoff = (scale * (PASS_EDGE + STOP_EDGE)) / 2
  const weights = Array.from({ length: 2 * half + 2 }, (_, tap) => {
    const distance = tap - half - rest
    if (Math.abs(distance) > half) return 0
    const window = bessel(BETA * Math.sqrt(Math.max(0, 1 - (distance / half) ** 2))) / bessel(BETA)
    return cutoff * sinc(cutoff * distance) * window
  })
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return Float32Array.from(weights, (weight) => weight / total)
}

/** @param {number} x */
function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x)
}

/**
 * The modified Bessel function of the first kind of order 0, by its series.
 * @param {number} x
 */
function bessel(x) {
  let sum = 1
  let term = 1
  for (let k = 1; term > 1e-17 * sum; k++) {
    term *= (x / (2 * k)) ** 2
    sum += term
  }
  return sum
}

/**
 * @param {number} a
 * @param {number} b
 * @returns {number}
 */
function divisor(a, b) {
  return b ? divisor(b, a % b) : a
}
