// The panel that transcribes: record, drop or choose; text appears as it is decoded.

import { decodeAudio, SAMPLE_RATE } from '../audio/decode.js'
import { startRecording } from '../audio/recorder.js'
import { messageOf } from '../errors.js'
import { Client } from './client.js'
import { element, make, showError } from './dom.js'
import { clock, languageName, save, toSrt, toText } from './formats.js'
import { Model } from './model.js'

/** @typedef {import('../speech/transcriber.js').Segment} Segment */

export class SpeechPanel {
  #client = new Client()
  #model = new Model('speech', 'speech model', this.#client, (about) => this.#opened(about))
  #record = element('record', HTMLButtonElement)
  #recordLabel = element('record-label', HTMLElement)
  #file = element('audio-file', HTMLInputElement)
  #fileLabel = element('audio-label', HTMLLabelElement)
  #language = element('language', HTMLSelectElement)
  #translate = element('translate', HTMLInputElement)
  #error = element('speech-error', HTMLElement)
  #work = element('work', HTMLElement)
  #share = element('work-share', HTMLProgressElement)
  #list = element('segments', HTMLElement)
  #transcript = element('transcript', HTMLElement)
  #note = element('speech-note', HTMLElement)
  /** @type {import('../audio/recorder.js').Recorder | null} */
  #recorder = null
  /** @type {Segment[]} */
  #segments = []
  #name = 'transcript'
  #busy = false
  #open = false

  async start() {
    const drop = element('drop', HTMLElement)
    this.#record.onclick = () => void (this.#recorder ? this.#endRecording() : this.#beginRecording())
    this.#file.onchange = () => {
      const file = this.#file.files?.[0]
      this.#file.value = ''
      if (file) void this.#take(file)
    }
    drop.ondragover = (event) => {
      event.preventDefault()
      drop.classList.add('over')
    }
    drop.ondragleave = () => drop.classList.remove('over')
    drop.ondrop = (event) => {
      event.preventDefault()
      drop.classList.remove('over')
      const file = event.dataTransfer?.files[0]
      if (file) void (file.name.endsWith('.svb') ? this.#model.choose(file) : this.#take(file))
    }
    element('work-stop', HTMLElement).onclick = () => this.#client.stop()
    element('copy', HTMLElement).onclick = () => void navigator.clipboard.writeText(toText(this.#segments))
    element('save-txt', HTMLElement).onclick = () => save(`${this.#name}.txt`, `${toText(this.#segments)}\n`)
    element('save-srt', HTMLElement).onclick = () => save(`${this.#name}.srt`, toSrt(this.#segments))
    this.#refresh()
    await this.#model.start()
  }

  /** @param {import('./client.js').About | null} about */
  #opened(about) {
    this.#open = about !== null
    const several = (about?.languages.length ?? 0) > 1
    element('language-row', HTMLElement).hidden = !several
    const named = (about?.languages ?? []).map((code) => make('option', { value: code }, languageName(code)))
    named.sort((a, b) => a.text.localeCompare(b.text))
    this.#language.replaceChildren(make('option', { value: '' }, 'heard by itself'), ...named)
    this.#refresh()
  }

  #refresh() {
    this.#record.disabled = !this.#open || this.#busy
    this.#file.disabled = !this.#open || this.#busy || this.#recorder !== null
    this.#fileLabel.classList.toggle('off', this.#file.disabled)
    this.#record.setAttribute('aria-pressed', String(this.#recorder !== null))
    if (!this.#recorder) this.#recordLabel.textContent = 'Record'
    this.#work.hidden = !this.#busy
  }

  async #beginRecording() {
    showError(this.#error, null)
    try {
      this.#recorder = await startRecording((level, seconds) => {
        this.#record.style.setProperty('--level', String(Math.min(1, level * 6)))
        this.#recordLabel.textContent = `Stop ${clock(seconds)}`
      })
    } catch (error) {
      showError(this.#error, messageOf(error))
    }
    this.#refresh()
  }

  async #endRecording() {
    const recorder = this.#recorder
    this.#recorder = null
    this.#record.style.setProperty('--level', '0')
    if (recorder) await this.#guarded(async () => this.#transcribe(await recorder.stop(), 'recording'))
  }

  /** @param {File} file */
  async #take(file) {
    if (!this.#open || this.#busy || this.#recorder) return
    await this.#guarded(async () => {
      const samples = await decodeAudio(file)
      await this.#transcribe(samples, file.name.replace(/\.[^.]*$/, ''))
    })
  }

  /** @param {() => Promise<void>} work */
  async #guarded(work) {
    showError(this.#error, null)
    this.#busy = true
    this.#refresh()
    try {
      await work()
    } catch (error) {
      showError(this.#error, messageOf(error))
    } finally {
      this.#busy = false
      this.#refresh()
    }
  }

  /**
   * @param {Float32Array} samples
   * @param {string} name
   */
  async #transcribe(samples, name) {
    this.#name = name
    this.#segments = []
    this.#list.replaceChildren()
    this.#transcript.hidden = true
    this.#share.removeAttribute('value')
    const options = {
      language: this.#language.value || null,
      task: this.#translate.checked && !element('language-row', HTMLElement).hidden ? 'translate' : 'transcribe',
    }
    const found = await this.#client.request({ kind: 'transcribe', samples, options }, (event) => {
      if (event.segment) this.#add(event.segment)
      if (event.share !== undefined) this.#share.value = event.share
    })
    this.#transcript.hidden = false
    const seconds = samples.length / SAMPLE_RATE
    const said = this.#segments.length ? languageName(found.language) : 'nothing was said'
    this.#note.textContent = `${clock(seconds)} heard in ${found.seconds.toFixed(1)} s · ${said}`
  }

  /** @param {Segment} segment */
  #add(segment) {
    this.#segments.push(segment)
    this.#transcript.hidden = false
    this.#note.textContent = ''
    const time = make('time', { datetime: `PT${segment.start}S` }, clock(segment.start))
    this.#list.append(make('li', {}, time, make('span', {}, segment.text.trim())))
  }
}
