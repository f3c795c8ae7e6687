// The bundle of one task: chosen from a file, fetched from beside the page, or kept from the last visit; then opened.

import { messageOf } from '../errors.js'
import { element, make, megabytes } from './dom.js'
import { download, forget, keep, kept, offered } from './store.js'

/** @typedef {import('./client.js').About} About */
/** @typedef {import('./client.js').Client} Client */

const THREADS = Math.max(1, Math.min(4, navigator.hardwareConcurrency || 1))

export class Model {
  #task
  #title
  #client
  #place
  #onOpen

  /**
   * @param {string} task "speech" or "chat"
   * @param {string} title
   * @param {Client} client
   * @param {(about: About | null) => void} onOpen told when a bundle is open, with null when none is any more
   */
  constructor(task, title, client, onOpen) {
    this.#task = task
    this.#title = title
    this.#client = client
    this.#place = element(`${task}-model`, HTMLElement)
    this.#onOpen = onOpen
  }

  /** Open the bundle that is kept, if there is one; else show where one may come from. */
  async start() {
    const file = await kept(this.#task)
    if (file) await this.#open(file)
    else await this.#showSources(null)
  }

  /**
   * @param {File} file
   */
  async choose(file) {
    if (await this.#open(file)) await this.#keep(file)
  }

  async #download() {
    const bar = make('progress', { max: '1', 'aria-label': 'Download' })
    this.#show('Downloading…', 'once; it stays in this browser', bar)
    try {
      const file = await download(this.#task, (share) => (bar.value = share))
      if (await this.#open(file)) await this.#keep(file)
    } catch (error) {
      await this.#showSources(messageOf(error))
    }
  }

  /** @param {Blob} file */
  async #keep(file) {
    try {
      await keep(this.#task, file)
    } catch (error) {
      this.#place.append(make('small', { class: 'what' }, messageOf(error)))
    }
  }

  /**
   * @param {Blob} file
   * @returns {Promise<boolean>} whether it is open
   */
  async #open(file) {
    this.#onOpen(null)
    this.#show('Opening…', `${megabytes(file.size)}, every file's checksum among it`, make('progress', {}))
    try {
      /** @type {About} */
      const about = await this.#client.request({ kind: 'open', file, task: this.#task, threads: THREADS })
      this.#showOpen(about)
      this.#onOpen(about)
      return true
    } catch (error) {
      this.#client.close()
      await this.#showSources(messageOf(error))
      return false
    }
  }

  /** @param {About} about */
  #showOpen(about) {
    const forgetIt = make('button', { class: 'plain', type: 'button' }, 'Forget')
    forgetIt.onclick = async () => {
      await forget(this.#task)
      this.#client.close()
      this.#onOpen(null)
      await this.#showSources(null)
    }
    const facts = [about.precision, `for ${about.target}`, megabytes(about.bytes), `opened in ${about.seconds.toFixed(1)} s`]
    this.#show(about.name, facts.join(' · '), ...this.#chooser('Change', 'plain'), forgetIt)
  }

  /** @param {string | null} error */
  async #showSources(error) {
    const size = await offered(this.#task)
    const parts = this.#chooser('Choose a bundle', size === null ? '' : 'plain')
    if (size !== null) {
      const button = make('button', { type: 'button' }, size ? `Download ${megabytes(size)}` : 'Download')
      button.onclick = () => this.#download()
      parts.unshift(button)
    }
    if (error !== null) parts.push(make('p', { class: 'error what', role: 'alert' }, error))
    this.#show(`No ${this.#title} yet`, 'a .svb file, made by sottovoce compile', ...parts)
  }

  /**
   * @param {string} label
   * @param {string} kind
   * @returns {HTMLElement[]}
   */
  #chooser(label, kind) {
    const id = `${this.#task}-bundle`
    const input = make('input', { id, type: 'file', accept: '.svb', class: 'hidden' })
    input.onchange = () => {
      const file = input.files?.[0]
      if (file) void this.choose(file)
    }
    return [input, make('label', { class: `button ${kind}`, for: id }, label)]
  }

  /**
   * @param {string} heading
   * @param {string} detail
   * @param {...HTMLElement} parts
   */
  #show(heading, detail, ...parts) {
    const what = make('div', { class: 'what' }, make('strong', {}, heading), make('small', {}, detail))
    this.#place.replaceChildren(what, ...parts)
  }
}
