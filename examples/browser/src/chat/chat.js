// Messages in, an answer out, piece by piece: the chat bundle opened, and the loop of its tokens.
//
// What a prompt has in common with the last one is not evaluated again. Left out beside the device's `sottovoce chat`:
// tools, answers held to a schema, thinking sections shown apart, saved sessions, drafts.

import { BundleError, printable } from '../errors.js'
import { OnnxChat } from '../engines/chat.js'
import { Prompter } from './prompt.js'
import { Sampler, samplingOf } from './sampling.js'
import { Vocabulary } from './vocabulary.js'

/** @typedef {typeof import('onnxruntime-web')} Ort */
/** @typedef {import('./prompt.js').Message} Message */
/** @typedef {import('./sampling.js').Sampling} Sampling */
/** @typedef {Partial<Sampling> & { seed?: number, maxTokens?: number }} Options */
/**
 * @typedef {object} Delta a piece of text; the last one says why it is the last
 * @property {string} text
 * @property {'stop' | 'length' | 'stopped'} [reason]
 * @property {number} [tokens] of the answer
 * @property {number} [prompt] tokens of the prompt
 * @property {number} [cached] tokens of it that were not evaluated again
 * @property {number} [dropped] messages that were left out because they did not fit
 */
/** @typedef {{ Template: import('./prompt.js').TemplateClass, Tokenizer: import('./vocabulary.js').EncoderClass }} Libraries */

const TOKENIZER = 'tokenizer.json'
const TEMPLATE = 'chat_template.jinja'

export class Chat {
  #engine
  #vocabulary
  #prompter
  #recommended
  /** @type {number[]} tokens that the engine's cache holds, and maybe some that it was to hold */
  #noted = []

  /**
   * Made by `openChat`.
   * @param {OnnxChat} engine
   * @param {Vocabulary} vocabulary
   * @param {Prompter} prompter
   * @param {unknown} recommended
   */
  constructor(engine, vocabulary, prompter, recommended) {
    this.#engine = engine
    this.#vocabulary = vocabulary
    this.#prompter = prompter
    this.#recommended = recommended
  }

  /** Tokens there is room for. */
  get context() {
    return this.#engine.context
  }

  /**
   * The tokens that messages become.
   * @param {readonly Message[]} messages
   */
  tokens(messages) {
    return this.#prompter.tokens(messages)
  }

  /**
   * The answer to `messages`. Throws InputError for anything that is not sound, before anything is computed.
   * @param {readonly Message[]} messages
   * @param {Options} [options]
   * @param {() => Promise<boolean>} [stopped] asked before each token
   * @returns {AsyncGenerator<Delta>}
   */
  async *stream(messages, options = {}, stopped = async () => false) {
    const { tokens: prompt, dropped } = this.#prompter.prompt(messages, this.context)
    const seed = options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0] ?? 0
    const sampler = new Sampler(samplingOf(this.#recommended, options), prompt, seed)
    const text = new TextDecoder('utf-8', { ignoreBOM: true })
    const most = Math.min(options.maxTokens ?? Infinity, this.context - prompt.length + 1)
    const cached = this.#reuse(prompt)
    const last = (/** @type {Delta['reason']} */ reason, said = 0, rest = '') => {
      return { text: rest + text.decode(), reason, tokens: said, prompt: prompt.length, cached, dropped }
    }
    const unread = prompt.slice(cached)
    // All but the last token first, as when they are in the cache already: kernels for one row and for many round
    // differently, and the same question would be answered differently when it is asked again.
    if (unread.length > 1 && !(await this.#evaluate(unread.slice(0, -1), stopped))) return yield last('stopped')
    let next = unread.at(-1) ?? 0
    for (let said = 0; ; ) {
      const logits = await this.#evaluate([next], stopped)
      if (!logits) return yield last('stopped', said)
      next = sampler.choose(logits)
      if (this.#vocabulary.ends.has(next)) return yield last('stop', said)
      said++
      sampler.accept(next)
      const piece = text.decode(this.#vocabulary.bytes(next), { stream: true })
      if (said >= most) return yield last('length', said, piece)
      yield { text: piece }
    }
  }

  async close() {
    await this.#engine.close()
  }

  /**
   * Keep what the cache and the prompt begin with alike, but for the prompt's last token, whose logits are wanted.
   * @param {readonly number[]} prompt
   * @returns {number} how many tokens need no evaluation
   */
  #reuse(prompt) {
    const known = Math.min(this.#engine.length, this.#noted.length, prompt.length - 1)
    let alike = 0
    while (alike < known && this.#noted[alike] === prompt[alike]) alike++
    this.#engine.truncate(alike)
    this.#noted = this.#noted.slice(0, alike)
    return alike
  }

  /**
   * Noted before it is evaluated: what the engine does not hold, after a stop or a failure, is forgotten at the next use.
   * @param {number[]} tokens
   * @param {() => Promise<boolean>} stopped
   */
  #evaluate(tokens, stopped) {
    this.#noted = [...this.#noted.slice(0, this.#engine.length), ...tokens]
    return this.#engine.evaluate(tokens, stopped)
  }
}

/**
 * Throws BundleError for a bundle that is damaged, made for another task, or beyond this page.
 * @param {Ort} ort
 * @param {import('../bundle/bundle.js').Bundle} bundle
 * @param {Libraries} libraries
 * @returns {Promise<Chat>}
 */
export async function openChat(ort, bundle, { Template, Tokenizer }) {
  const { task, generation } = bundle.manifest
  if (task !== 'chat') throw new BundleError(`a bundle for ${printable(task)}; one that chats is needed`)
  if (!bundle.has(TEMPLATE)) throw new BundleError('this model has no chat template: it was not made to answer messages')
  samplingOf(generation.sampling, {})
  const engine = new OnnxChat(ort, bundle)
  const vocabulary = new Vocabulary(Tokenizer, await bundle.read(TOKENIZER), generation, engine.vocabulary)
  const prompter = new Prompter(Template, await bundle.readText(TEMPLATE), generation, vocabulary)
  await engine.load()
  return new Chat(engine, vocabulary, prompter, generation.sampling)
}
