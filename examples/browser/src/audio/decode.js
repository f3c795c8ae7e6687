// Whatever the user has, as mono samples at 16 kHz: WAV is read here, as on the device; the rest by the browser.

import { AudioError, messageOf } from '../errors.js'
import { canResample, resample } from './resample.js'
import { readWave } from './wav.js'

/** @typedef {import('./wav.js').Audio} Audio */

export const SAMPLE_RATE = 16000 // Hz
const MAX_LEVEL = 100 // 40 dB over full scale: beyond it floats are not audio
const MAX_SECONDS = 4 * 3600
const MAX_BYTES = 1 << 30

/**
 * Samples (n,), mono at 16 kHz, full scale 1. Throws AudioError for anything that is not usable audio.
 * @param {Blob} file
 * @returns {Promise<Float32Array>}
 */
export async function decodeAudio(file) {
  if (!file.size) throw new AudioError('the file is empty')
  if (file.size > MAX_BYTES) throw new AudioError(`the file has ${file.size} bytes, the limit is ${MAX_BYTES}; cut it`)
  const bytes = await file.arrayBuffer()
  let audio = readWave(bytes)
  if (!audio || !canResample(audio.rate, SAMPLE_RATE)) audio = await decodeInBrowser(bytes)
  return toSpeech(audio)
}

/**
 * One channel at 16 kHz. Throws AudioError for samples that are no audio.
 * @param {Audio} audio
 * @returns {Float32Array}
 */
export function toSpeech({ rate, channels }) {
  const mono = mix(channels)
  if (!mono.length) throw new AudioError('there is no audio in it')
  if (mono.length > MAX_SECONDS * rate) throw new AudioError('more than four hours; cut it')
  const level = mono.reduce((most, value) => (Number.isNaN(value) ? NaN : Math.max(most, Math.abs(value))), 0)
  if (!(level <= MAX_LEVEL)) throw new AudioError(`samples of up to ${level}; floats within -1..1 are expected`)
  return resample(mono, rate, SAMPLE_RATE)
}

/** @param {Float32Array[]} channels */
function mix(channels) {
  const [first] = channels
  if (!first || channels.length === 1) return first ?? new Float32Array(0)
  return first.map((_, i) => channels.reduce((sum, channel) => sum + (channel[i] ?? 0), 0) / channels.length)
}

/**
 * @param {ArrayBuffer} bytes
 * @returns {Promise<Audio>}
 */
async function decodeInBrowser(bytes) {
  // Decoding brings audio to the context's rate: a FLAC says its own, so that the change of rate is ours, as on the device.
  const own = flacRate(bytes)
  const rate = own !== null && canResample(own, SAMPLE_RATE) && own >= 8000 && own <= 96000 ? own : SAMPLE_RATE
  try {
    const decoded = await new OfflineAudioContext(1, 1, rate).decodeAudioData(bytes)
    const channels = Array.from({ length: decoded.numberOfChannels }, (_, i) => decoded.getChannelData(i))
    return { rate: decoded.sampleRate, channels }
  } catch (error) {
    throw new AudioError(`this browser cannot decode the file (${messageOf(error)}); WAV, MP3, M4A, OGG and FLAC mostly work`)
  }
}

/**
 * The sample rate in Hz that a FLAC file states; null for other files.
 * @param {ArrayBuffer} bytes
 * @returns {number | null}
 */
export function flacRate(bytes) {
  if (bytes.byteLength < 22) return null
  const data = new DataView(bytes)
  if (data.getUint32(0) !== 0x664c6143) return null // "fLaC"
  return (data.getUint32(18) >>> 12) || null
}
