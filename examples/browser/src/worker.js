// Runs one bundle beside the page, so that the page stays alive: requests come in, events and results go out.
//
// A request is { id, kind, ... }; answers carry its id: { id, event }, any number of times, then { id, result } or
// { id, error: { name, message } }. One request at a time; "stop" ends the one that runs.

import { openBundle } from './bundle/bundle.js'
import { openChat } from './chat/chat.js'
import { InputError, messageOf } from './errors.js'
import { loadOrt, loadText } from './libraries.js'
import { openTranscriber } from './speech/transcriber.js'

/** @typedef {import('./speech/transcriber.js').Transcriber} Transcriber */
/** @typedef {import('./chat/chat.js').Chat} Chat */
/**
 * @typedef {{ id: number, kind: 'open', file: Blob, task: string, threads: number }
 *   | { id: number, kind: 'transcribe', samples: Float32Array, options: import('./speech/transcriber.js').Options }
 *   | { id: number, kind: 'answer', messages: import('./chat/chat.js').Message[], options: import('./chat/chat.js').Options }
 *   | { id: number, kind: 'stop' }} Request
 */

/** @type {{ transcriber?: Transcriber, chat?: Chat, stopping: boolean }} */
const state = { stopping: false }
const moment = new MessageChannel()
/** @type {Promise<unknown>} */
let queue = Promise.resolve()

onmessage = ({ data }) => {
  const request = /** @type {Request} */ (data)
  if (request.kind === 'stop') {
    state.stopping = true
    return
  }
  queue = queue.then(() => answer(request))
}

/** @param {Request} request */
async function answer(request) {
  state.stopping = false
  const tell = (/** @type {unknown} */ event) => postMessage({ id: request.id, event })
  try {
    postMessage({ id: request.id, result: await perform(request, tell) })
  } catch (error) {
    const name = error instanceof Error ? error.name : 'Error'
    postMessage({ id: request.id, error: { name, message: messageOf(error) } })
  }
}

/**
 * @param {Request} request
 * @param {(event: unknown) => void} tell
 */
async function perform(request, tell) {
  switch (request.kind) {
    case 'open':
      return open(request)
    case 'transcribe':
      return transcribe(request, tell)
    case 'answer':
      return reply(request, tell)
    default:
      throw new InputError(`a request of an unknown kind`)
  }
}

/** @param {Extract<Request, { kind: 'open' }>} request */
async function open({ file, task, threads }) {
  const began = performance.now()
  await state.transcriber?.close()
  await state.chat?.close()
  delete state.transcriber
  delete state.chat
  const bundle = await openBundle(file)
  const ort = await loadOrt(threads)
  const { name, precision, target, licence } = bundle.manifest
  const about = { name, precision, target, licence, bytes: bundle.size }
  if (task === 'chat') {
    state.chat = await openChat(ort, bundle, await loadText())
    return { ...about, seconds: since(began), context: state.chat.context, languages: [] }
  }
  state.transcriber = await openTranscriber(ort, bundle)
  return { ...about, seconds: since(began), context: 0, languages: state.transcriber.languages }
}

/**
 * @param {Extract<Request, { kind: 'transcribe' }>} request
 * @param {(event: unknown) => void} tell
 */
async function transcribe({ samples, options }, tell) {
  if (!state.transcriber) throw new InputError('open a bundle for speech first')
  const began = performance.now()
  const found = await state.transcriber.transcribe(samples, options, {
    language: (language, probability) => tell({ language, probability }),
    segment: (segment) => tell({ segment }),
    progress: (share) => tell({ share }),
    stopped: isStopped,
  })
  return { ...found, seconds: since(began) }
}

/**
 * @param {Extract<Request, { kind: 'answer' }>} request
 * @param {(event: unknown) => void} tell
 */
async function reply({ messages, options }, tell) {
  if (!state.chat) throw new InputError('open a bundle for chat first')
  const began = performance.now()
  let first = 0
  for await (const delta of state.chat.stream(messages, options, isStopped)) {
    first ||= since(began)
    tell(delta)
  }
  return { seconds: since(began), first }
}

/** Whether "stop" has come; the message is only seen when this thread is free for a moment. */
async function isStopped() {
  await new Promise((resolve) => {
    moment.port1.onmessage = resolve
    moment.port2.postMessage(null)
  })
  return state.stopping
}

/** @param {number} began */
function since(began) {
  return (performance.now() - began) / 1000
}
