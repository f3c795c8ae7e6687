// The worker's other end: requests as promises.

import { EngineError } from '../errors.js'

/**
 * What is known of an open bundle.
 * @typedef {object} About
 * @property {string} name
 * @property {string} precision
 * @property {string} target
 * @property {string | null} licence
 * @property {number} bytes
 * @property {number} seconds that opening took
 * @property {number} context tokens, of a bundle for chat
 * @property {string[]} languages of a bundle for speech
 */

export class Client {
  /** @type {Worker | null} */
  #worker = null
  #last = 0
  /** @type {Map<number, { resolve: (value: any) => void, reject: (error: Error) => void, onEvent: (event: any) => void }>} */
  #waiting = new Map()

  /**
   * Rejects with what the worker throws, or EngineError where it dies.
   * @param {Record<string, unknown> & { kind: string }} fields
   * @param {(event: any) => void} [onEvent]
   * @returns {Promise<any>}
   */
  request(fields, onEvent = () => {}) {
    const id = ++this.#last
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, onEvent })
      this.#running().postMessage({ id, ...fields })
    })
  }

  /** End what runs, soon. */
  stop() {
    this.#worker?.postMessage({ id: 0, kind: 'stop' })
  }

  /** Give all memory back. What waits is rejected with `reason`. */
  close(reason = 'closed') {
    this.#worker?.terminate()
    this.#worker = null
    for (const { reject } of this.#waiting.values()) reject(new EngineError(reason))
    this.#waiting.clear()
  }

  #running() {
    if (this.#worker) return this.#worker
    const worker = new Worker(new URL('../worker.js', import.meta.url), { type: 'module' })
    worker.onmessage = ({ data }) => {
      const waiting = this.#waiting.get(data.id)
      if (!waiting) return
      if ('event' in data) return waiting.onEvent(data.event)
      this.#waiting.delete(data.id)
      if (data.error) waiting.reject(Object.assign(new Error(data.error.message), { name: data.error.name }))
      else waiting.resolve(data.result)
    }
    worker.onerror = (event) => {
      this.close(`the worker stopped: ${event.message || 'its script could not be loaded; run `npm run vendor`'}`)
    }
    this.#worker = worker
    return worker
  }
}
