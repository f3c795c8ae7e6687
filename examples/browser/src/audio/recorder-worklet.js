// Runs in the audio thread: hands on what the microphone gives, a tenth of a second at a time.

class RecorderProcessor extends AudioWorkletProcessor {
  /** @type {Float32Array} */
  #block = new Float32Array(Math.round(sampleRate / 10))
  #filled = 0

  /** @param {Float32Array[][]} inputs */
  process(inputs) {
    for (const value of inputs[0]?.[0] ?? []) {
      this.#block[this.#filled++] = value
      if (this.#filled === this.#block.length) {
        this.port.postMessage(this.#block.slice())
        this.#filled = 0
      }
    }
    return true
  }
}

registerProcessor('recorder', RecorderProcessor)
