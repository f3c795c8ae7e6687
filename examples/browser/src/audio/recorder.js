// The microphone, as samples at 16 kHz.

import { AudioError, messageOf } from '../errors.js'
import { SAMPLE_RATE, toSpeech } from './decode.js'

export class Recorder {
  #stream
  #context
  /** @type {Float32Array[]} */
  #parts = []
  #onLevel

  /**
   * Made by `startRecording`.
   * @param {MediaStream} stream
   * @param {AudioContext} context
   * @param {(level: number, seconds: number) => void} onLevel
   */
  constructor(stream, context, onLevel) {
    this.#stream = stream
    this.#context = context
    this.#onLevel = onLevel
  }

  /** @param {Float32Array} samples */
  take(samples) {
    this.#parts.push(samples)
    const level = Math.sqrt(samples.reduce((sum, value) => sum + value * value, 0) / samples.length)
    this.#onLevel(level, this.#count / this.#context.sampleRate)
  }

  /**
   * End the recording: all of it, (n,) at 16 kHz.
   * @returns {Promise<Float32Array>}
   */
  async stop() {
    for (const track of this.#stream.getTracks()) track.stop()
    const rate = this.#context.sampleRate
    await this.#context.close()
    const all = new Float32Array(this.#count)
    let at = 0
    for (const part of this.#parts) {
      all.set(part, at)
      at += part.length
    }
    return toSpeech({ rate, channels: [all] })
  }

  get #count() {
    return this.#parts.reduce((sum, part) => sum + part.length, 0)
  }
}

/**
 * Ask for the microphone and begin. Throws AudioError where there is none, or it is not allowed.
 * @param {(level: number, seconds: number) => void} onLevel told the loudness (root mean square) ten times a second
 * @returns {Promise<Recorder>}
 */
export async function startRecording(onLevel) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new AudioError('the microphone needs a page from https, or from http://localhost')
  }
  /** @type {MediaStream} */
  let stream
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1, echoCancellation: false } })
  } catch (error) {
    const refused = error instanceof DOMException && error.name === 'NotAllowedError'
    throw new AudioError(refused ? 'the microphone was not allowed; allow it in the address bar' : messageOf(error))
  }
  const { context, source } = connect(stream)
  const recorder = new Recorder(stream, context, onLevel)
  await context.audioWorklet.addModule(new URL('./recorder-worklet.js', import.meta.url))
  const node = new AudioWorkletNode(context, 'recorder', { numberOfOutputs: 0 })
  node.port.onmessage = ({ data }) => recorder.take(data)
  source.connect(node)
  await context.resume()
  return recorder
}

/**
 * A context at 16 kHz, or at the microphone's own rate where a browser cannot change it.
 * @param {MediaStream} stream
 */
function connect(stream) {
  const wanted = new AudioContext({ sampleRate: SAMPLE_RATE })
  try {
    return { context: wanted, source: wanted.createMediaStreamSource(stream) }
  } catch {
    void wanted.close()
    const context = new AudioContext()
    return { context, source: context.createMediaStreamSource(stream) }
  }
}
