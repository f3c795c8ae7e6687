// From the tokens of one piece to segments with times: runtime/sottovoce/segments.py, without the times of words.

import { secondsOf } from './tokens.js'

/**
 * A segment inside a piece: times in seconds from the piece's start; `closed` says whether the transcript itself gave the
 * end.
 * @typedef {{ start: number, end: number, tokens: number[], closed: boolean }} Cut
 */

/**
 * Segments by the timestamps among `ids`; the whole piece where there are none.
 * @param {readonly number[]} ids
 * @param {import('./tokens.js').Steering} tokens
 * @param {number} duration seconds
 * @returns {Cut[]}
 */
export function cutSegments(ids, tokens, duration) {
  /** @type {Cut[]} */
  const cuts = []
  let start = 0
  /** @type {number[]} */
  let text = []
  ids.forEach((token, i) => {
    if (token < tokens.timestampBegin) {
      if (token < tokens.end) text.push(token)
      return
    }
    const time = Math.min(secondsOf(tokens, token), duration)
    if (text.length) {
      const next = ids[i + 1]
      cuts.push({ start, end: Math.max(time, start), tokens: text, closed: next === undefined || next >= tokens.timestampBegin })
      text = []
    }
    start = time
  })
  if (text.length) cuts.push({ start, end: Math.max(duration, start), tokens: text, closed: false })
  return cuts
}
