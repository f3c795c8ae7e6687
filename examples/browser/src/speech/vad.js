// Where somebody speaks: the bundle's voice activity network (Silero VAD) over frames of 32 ms, and stretches from it.
// Numbers are the device's (runtime/sottovoce/vad.py).

/** @typedef {typeof import('onnxruntime-web')} Ort */
/** @typedef {{ start: number, end: number }} Span a half-open stretch of samples */

export const SAMPLE_RATE = 16000 // Hz
export const FRAME = 512 // samples, 32 ms
const CONTEXT = 64 // samples of the frame before, which the network sees too
const FRAMES_A_CALL = 512 // bounds memory; 16 s
const THRESHOLD = 0.4
const LOWER = THRESHOLD - 0.15
const MIN_SPEECH = 0.1 // seconds
const MIN_SILENCE = 0.3
const PAD = 0.2

/**
 * The probability of speech in every 32 ms, the last of them padded.
 * @param {Ort} ort
 * @param {import('onnxruntime-web').InferenceSession} session
 * @param {Float32Array} samples (n,) at 16 kHz
 * @returns {Promise<Float32Array>}
 */
export async function speechProbabilities(ort, session, samples) {
  const frames = Math.ceil(samples.length / FRAME)
  const out = new Float32Array(frames)
  let h = new ort.Tensor('float32', new Float32Array(128), [1, 1, 128])
  let c = new ort.Tensor('float32', new Float32Array(128), [1, 1, 128])
  for (let first = 0; first < frames; first += FRAMES_A_CALL) {
    const count = Math.min(FRAMES_A_CALL, frames - first)
    const input = new Float32Array(count * (CONTEXT + FRAME))
    for (let i = 0; i < count; i++) {
      const at = (first + i) * FRAME
      const row = samples.subarray(Math.max(0, at - CONTEXT), at + FRAME)
      input.set(row, i * (CONTEXT + FRAME) + Math.max(0, CONTEXT - at))
    }
    const feed = { input: new ort.Tensor('float32', input, [count, CONTEXT + FRAME]), h, c }
    const found = await session.run(feed)
    if (!found.speech_probs || !found.hn || !found.cn) throw new Error('the voice activity network has other outputs')
    out.set(/** @type {Float32Array} */ (found.speech_probs.data), first)
    h = /** @type {import('onnxruntime-web').TypedTensor<'float32'>} */ (found.hn)
    c = /** @type {import('onnxruntime-web').TypedTensor<'float32'>} */ (found.cn)
  }
  return out
}

/**
 * Stretches of speech in `total` samples, padded, in order and apart from each other.
 * @param {Float32Array} probabilities
 * @param {number} total
 * @returns {Span[]}
 */
export function speechSpans(probabilities, total) {
  const pad = Math.round(PAD * SAMPLE_RATE)
  const spans = runs(probabilities)
    .filter(({ start, end }) => (end - start) * FRAME >= MIN_SPEECH * SAMPLE_RATE)
    .map(({ start, end }) => ({ start: Math.max(0, start * FRAME - pad), end: Math.min(total, end * FRAME + pad) }))
  for (let i = 1; i < spans.length; i++) {
    const [a, b] = [spans[i - 1], spans[i]]
    if (a && b && a.end > b.start) a.end = b.start = Math.floor((a.end + b.start) / 2)
  }
  return spans
}

/**
 * Runs of frames: begun at the threshold, ended by enough silence below the lower one.
 * @param {Float32Array} probabilities
 */
function runs(probabilities) {
  const patience = Math.max(1, Math.round((MIN_SILENCE * SAMPLE_RATE) / FRAME))
  /** @type {Span[]} */
  const found = []
  let start = -1
  let quiet = 0
  probabilities.forEach((probability, i) => {
    if (start < 0) {
      if (probability >= THRESHOLD) [start, quiet] = [i, 0]
      return
    }
    quiet = probability < LOWER ? quiet + 1 : 0
    if (quiet >= patience) {
      found.push({ start, end: i + 1 - quiet })
      start = -1
    }
  })
  if (start >= 0) found.push({ start, end: probabilities.length - quiet })
  return found
}
