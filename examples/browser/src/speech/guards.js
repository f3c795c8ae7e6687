// Signs that a transcript is not what was said: loops, text that compresses too well, more than can be said in the time.
// The measures and numbers are the device's (runtime/sottovoce/decoding/guards.py).

const LEAST_REPEATED = 16 // tokens that a loop must cover before it is called one: "no, no, no" is speech
const LEAST_TIMES = 4
const LONGEST_PERIOD = 32 // tokens
const CHARACTERS_A_SECOND = 35
const SPARE_CHARACTERS = 25

/**
 * How many times smaller zlib makes the text; prose stays below 2.4. Browsers' zlib may differ from the device's by a
 * few bytes.
 * @param {string} text
 */
export async function compressionRatio(text) {
  const data = new TextEncoder().encode(text)
  if (!data.length) return 0
  const packed = new Blob([data]).stream().pipeThrough(new CompressionStream('deflate'))
  return data.length / (await new Response(packed).arrayBuffer()).byteLength
}

/**
 * @param {string} text
 * @param {number} seconds
 */
export function tooFast(text, seconds) {
  return [...text].length > SPARE_CHARACTERS + CHARACTERS_A_SECOND * seconds
}

/**
 * Where the tail of `tokens` begins to repeat itself: the index after the first time round, or null.
 *
 * A phrase of up to 32 tokens counts when it came four times in a row (three, if it has eight tokens or more) and the
 * repetition covers at least 16 tokens.
 * @param {readonly number[]} tokens
 * @returns {number | null}
 */
export function loopStart(tokens) {
  const count = tokens.length
  for (let period = 1; period <= Math.min(LONGEST_PERIOD, Math.floor(count / 3)); period++) {
    let covered = period
    while (covered < count && tokens[count - 1 - covered] === tokens[count - 1 - covered + period]) covered++
    const times = Math.floor(covered / period)
    if (covered >= LEAST_REPEATED && times >= (period >= 8 ? 3 : LEAST_TIMES)) return count - covered + period
  }
  return null
}
