// From messages to the tokens of a prompt, through the bundle's own template.
//
// A control token's spelling in a message stays text: before rendering it gives way to a mark that no template looks for,
// and what the mark stands for is encoded without control tokens (as in runtime/sottovoce/chat/plain_text.py).

import { BundleError, InputError, messageOf } from '../errors.js'
import { isTable } from '../bundle/manifest.js'

/** @typedef {{ role: 'system' | 'user' | 'assistant', content: string }} Message */
/** @typedef {new (source: string) => { render: (values: Record<string, unknown>) => string }} TemplateClass of jinja */
/** @typedef {import('./vocabulary.js').Vocabulary} Vocabulary */

const MAX_SOURCE = 1 << 18 // characters of a template
const OPEN = '\ue10a' // private use, and removed from what is written
const CLOSE = '\ue10b'
const MARK = new RegExp(`${OPEN}(\\d{1,7})${CLOSE}`, 'u')
const STRAY = new RegExp(`[${OPEN}${CLOSE}]`, 'gu')
const ANSWER = 256 // tokens kept free for an answer

export class Prompter {
  #template
  #values
  #vocabulary
  #controls

  /**
   * Throws BundleError for a template that is not sound.
   * @param {TemplateClass} Template
   * @param {string} source
   * @param {Record<string, unknown>} generation from the manifest: `special_tokens`, texts that the template reads
   * @param {Vocabulary} vocabulary
   */
  constructor(Template, source, generation, vocabulary) {
    if (source.length > MAX_SOURCE) throw new BundleError(`the chat template has ${source.length} characters`)
    try {
      this.#template = new Template(source)
    } catch (error) {
      throw new BundleError(`the chat template is damaged: ${messageOf(error)}`)
    }
    this.#values = isTable(generation.special_tokens) ? generation.special_tokens : {}
    this.#vocabulary = vocabulary
    const spelt = [...vocabulary.controls.keys()].sort((a, b) => b.length - a.length).map(escaped)
    this.#controls = spelt.length ? new RegExp(spelt.join('|'), 'gu') : null
  }

  /**
   * The tokens of a prompt; the oldest turns are left out where not all fit beside room for an answer.
   *
   * Throws InputError where the last message alone is too long, or the template refuses the messages.
   * @param {readonly Message[]} messages
   * @param {number} context tokens
   * @returns {{ tokens: number[], dropped: number }}
   */
  prompt(messages, context) {
    const room = context - Math.min(ANSWER, Math.floor(context / 2))
    let kept = [...messages]
    for (;;) {
      const tokens = this.tokens(kept)
      if (tokens.length <= room) return { tokens, dropped: messages.length - kept.length }
      const shorter = withoutOldestTurn(kept)
      if (!shorter) throw new InputError(`the last message is ${tokens.length} tokens with what belongs to it; at most ${room} fit`)
      kept = shorter
    }
  }

  /**
   * @param {readonly Message[]} messages
   * @returns {number[]}
   */
  tokens(messages) {
    const hidden = messages.map(({ role, content }) => ({ role, content: this.#marked(content) }))
    const tokens = this.#pieces(this.#render(hidden)).flatMap(([text, special]) => this.#vocabulary.encode(text, special))
    const { bos } = this.#vocabulary
    return bos !== null && tokens[0] !== bos ? [bos, ...tokens] : tokens
  }

  /** @param {Message[]} messages */
  #render(messages) {
    try {
      return this.#template.render({ ...this.#values, messages, tools: null, add_generation_prompt: true })
    } catch (error) {
      throw new InputError(`the chat template refuses these messages: ${messageOf(error)}`)
    }
  }

  /** @param {string} text */
  #marked(text) {
    const clean = text.replace(STRAY, '')
    if (!this.#controls) return clean
    return clean.replace(this.#controls, (found) => `${OPEN}${this.#vocabulary.controls.get(found)}${CLOSE}`)
  }

  /**
   * Rendered text in the parts that are encoded one by one, each with whether control tokens may be in it.
   * @param {string} text
   * @returns {[string, boolean][]}
   */
  #pieces(text) {
    const spellings = new Map([...this.#vocabulary.controls].map(([spelling, id]) => [String(id), spelling]))
    return text.split(MARK).map((part, i) => (i % 2 ? [spellings.get(part) ?? '', false] : [part, true]))
  }
}

/**
 * Messages without the oldest of a user's and what answers it; null where only the last turn is left.
 * @param {readonly Message[]} messages
 * @returns {Message[] | null}
 */
function withoutOldestTurn(messages) {
  const turns = messages.flatMap(({ role }, i) => (role === 'user' ? [i] : []))
  const [first, second] = turns
  if (first === undefined || second === undefined) return null
  return messages.filter(({ role }, i) => i < first || i >= second || role === 'system')
}

/** @param {string} text */
function escaped(text) {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')
}
