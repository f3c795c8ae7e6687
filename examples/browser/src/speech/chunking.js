// Cutting a recording into pieces that the encoder takes at once, at pauses wherever there are any, as the device does
// (runtime/sottovoce/chunking.py). A piece keeps the pauses inside it: times in it are times in the recording less its
// start.

import { FRAME, SAMPLE_RATE } from './vad.js'

/** @typedef {import('./vad.js').Span} Span */

export const WANTED = 15 * SAMPLE_RATE // samples of a piece at most
const LONGEST_PAUSE = 3 * SAMPLE_RATE // of silence worth encoding to keep two spans together
const SHORTEST_REST = SAMPLE_RATE // that a cut leaves over at least: a sliver of sound has words invented for it

/**
 * Pieces that cover every span, cut between spans or at the quietest frame.
 * @param {Span[]} spans
 * @param {Float32Array} probabilities of speech, a frame
 * @returns {Span[]}
 */
export function pieces(spans, probabilities) {
  /** @type {Span[]} */
  const merged = []
  for (const piece of spans.flatMap((span) => split(span, probabilities))) {
    const last = merged.at(-1)
    if (last && piece.end - last.start <= WANTED && piece.start - last.end <= LONGEST_PAUSE) last.end = piece.end
    else merged.push({ ...piece })
  }
  return merged
}

/**
 * A span in parts that fit, cut where speech is least likely in the second half of what fits.
 * @param {Span} span
 * @param {Float32Array} probabilities
 */
function split(span, probabilities) {
  /** @type {Span[]} */
  const parts = []
  let start = span.start
  while (span.end - start > WANTED) {
    const latest = Math.max(start + FRAME, Math.min(start + WANTED, span.end - SHORTEST_REST))
    const first = Math.floor((start + Math.floor(WANTED / 2)) / FRAME)
    const window = probabilities.subarray(first, Math.floor(latest / FRAME))
    let cut = window.length ? (first + leastOf(window)) * FRAME + FRAME / 2 : latest
    cut = Math.min(Math.max(cut, start + FRAME), latest)
    parts.push({ start, end: cut })
    start = cut
  }
  return [...parts, { start, end: span.end }]
}

/** @param {Float32Array} values */
function leastOf(values) {
  let least = 0
  for (let i = 1; i < values.length; i++) if ((values[i] ?? 0) < (values[least] ?? 0)) least = i
  return least
}
