// Bundles that this browser keeps, so that the page works without a network.

import { InputError } from '../errors.js'

const CACHE = 'sottovoce-bundles'
const MAX_BYTES = 0xfffffffe

/**
 * The bundle that is kept for a task; null where there is none.
 * @param {string} task
 * @returns {Promise<Blob | null>}
 */
export async function kept(task) {
  const found = await (await caches.open(CACHE)).match(place(task))
  return found ? found.blob() : null
}

/**
 * Keep a bundle in the place of the last one. Throws InputError where the browser has no room.
 * @param {string} task
 * @param {Blob} file
 */
export async function keep(task, file) {
  try {
    await (await caches.open(CACHE)).put(place(task), new Response(file))
    await navigator.storage?.persist?.()
  } catch {
    throw new InputError('this browser has no room to keep the bundle; it works until the page is closed')
  }
}

/** @param {string} task */
export async function forget(task) {
  await (await caches.open(CACHE)).delete(place(task))
}

/**
 * The size in bytes of the bundle that lies beside the page; null where there is none.
 * @param {string} task
 * @returns {Promise<number | null>}
 */
export async function offered(task) {
  try {
    const found = await fetch(address(task), { method: 'HEAD' })
    return found.ok ? Number(found.headers.get('content-length')) || 0 : null
  } catch {
    return null
  }
}

/**
 * Fetch the bundle that lies beside the page.
 * @param {string} task
 * @param {(share: number) => void} onProgress
 * @returns {Promise<Blob>}
 */
export async function download(task, onProgress) {
  const found = await fetch(address(task))
  if (!found.ok || !found.body) throw new InputError(`${address(task).pathname}: the server says ${found.status}`)
  const total = Number(found.headers.get('content-length')) || 0
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const parts = []
  let count = 0
  const reader = found.body.getReader()
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    parts.push(part.value)
    count += part.value.length
    if (count > MAX_BYTES) throw new InputError('the bundle is larger than a browser can run')
    if (total) onProgress(count / total)
  }
  return new Blob(parts)
}

/** @param {string} task */
function address(task) {
  return new URL(`bundles/${task}.svb`, document.baseURI)
}

/** @param {string} task */
function place(task) {
  return new URL(`kept/${task}.svb`, document.baseURI)
}
