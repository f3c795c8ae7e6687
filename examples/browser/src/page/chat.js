// The panel that chats: a conversation, streamed, with a stop.

import { messageOf } from '../errors.js'
import { Client } from './client.js'
import { element, make, showError } from './dom.js'
import { Model } from './model.js'

/** @typedef {import('../chat/chat.js').Message} Message */

export class ChatPanel {
  #client = new Client()
  #model = new Model('chat', 'chat model', this.#client, (about) => this.#opened(about))
  #log = element('log', HTMLElement)
  #error = element('chat-error', HTMLElement)
  #message = element('message', HTMLTextAreaElement)
  #send = element('send', HTMLButtonElement)
  #system = element('system', HTMLTextAreaElement)
  #temperature = element('temperature', HTMLInputElement)
  #maxTokens = element('max-tokens', HTMLInputElement)
  /** @type {Message[]} */
  #messages = []
  #open = false
  #busy = false
  #started = false

  prepare() {
    element('composer', HTMLFormElement).onsubmit = (event) => {
      event.preventDefault()
      if (this.#busy) this.#client.stop()
      else void this.#ask()
    }
    this.#message.onkeydown = (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
      event.preventDefault()
      if (!this.#busy) void this.#ask()
    }
    const value = element('temperature-value', HTMLOutputElement)
    const show = () => (value.textContent = this.#temperature.value === '0' ? '0, always the same' : this.#temperature.value)
    this.#temperature.oninput = show
    show()
    element('clear', HTMLElement).onclick = () => {
      this.#client.stop()
      this.#messages = []
      this.#showNothing()
    }
    this.#showNothing()
  }

  /** Open the bundle that is kept; once, when the panel is first seen. */
  async start() {
    if (this.#started) return
    this.#started = true
    await this.#model.start()
  }

  /** @param {import('./client.js').About | null} about */
  #opened(about) {
    this.#open = about !== null
    this.#refresh()
  }

  #refresh() {
    this.#message.disabled = !this.#open
    this.#send.disabled = !this.#open
    this.#send.textContent = this.#busy ? 'Stop' : 'Send'
  }

  #showNothing() {
    this.#log.replaceChildren(make('p', { class: 'nothing' }, 'A small model is quick and often wrong. Nobody reads along.'))
  }

  async #ask() {
    const content = this.#message.value.trim()
    if (!content || !this.#open) return
    showError(this.#error, null)
    const asked = this.#messages
    this.#messages = [...asked, { role: 'user', content }]
    const conversation = this.#messages
    if (!asked.length) this.#log.replaceChildren()
    const question = make('article', { class: 'user', 'aria-label': 'You' }, content)
    const answer = make('article', { 'aria-label': 'Answer', 'aria-busy': 'true' })
    this.#log.append(question, answer)
    this.#message.value = ''
    this.#busy = true
    this.#refresh()
    try {
      await this.#answer(conversation, answer)
    } catch (error) {
      showError(this.#error, messageOf(error))
      question.remove()
      answer.remove()
      this.#message.value = content
      if (this.#messages === conversation) this.#messages = asked
    } finally {
      answer.removeAttribute('aria-busy')
      this.#busy = false
      this.#refresh()
      this.#message.focus()
    }
  }

  /**
   * @param {Message[]} conversation
   * @param {HTMLElement} place
   */
  async #answer(conversation, place) {
    const system = this.#system.value.trim()
    /** @type {Message[]} */
    const messages = system ? [{ role: 'system', content: system }, ...conversation] : conversation
    const options = { temperature: Number(this.#temperature.value), maxTokens: this.#maxTokens.valueAsNumber || 512 }
    let text = ''
    /** @type {import('../chat/chat.js').Delta} */
    let last = { text }
    const { seconds, first } = await this.#client.request({ kind: 'answer', messages, options }, (delta) => {
      last = delta
      text += delta.text
      place.textContent = text
      this.#log.scrollTop = this.#log.scrollHeight
    })
    place.append('\n', make('small', {}, noteOf(last, seconds, first)))
    this.#log.scrollTop = this.#log.scrollHeight
    if (this.#messages === conversation) this.#messages = [...conversation, { role: 'assistant', content: text }]
  }
}

/**
 * @param {import('../chat/chat.js').Delta} last
 * @param {number} seconds
 * @param {number} first seconds up to the first token
 */
function noteOf({ tokens = 0, reason, dropped = 0 }, seconds, first) {
  const parts = [`${tokens} tokens in ${seconds.toFixed(1)} s, the first after ${first.toFixed(1)} s`]
  if (reason === 'length') parts.push('cut at the limit')
  if (reason === 'stopped') parts.push('stopped')
  if (dropped) parts.push(`the first ${dropped} messages were left out`)
  return parts.join(' · ')
}
