// The three libraries of others, as `npm run vendor` puts them into vendor/.

/** @typedef {typeof import('onnxruntime-web')} Ort */
/** @typedef {import('./chat/chat.js').Libraries} Libraries */

const VENDOR = new URL('../vendor/', import.meta.url)

/**
 * ONNX Runtime Web, for the CPU. Threads need a page that is cross-origin isolated (service-worker.js).
 * @param {number} threads
 * @returns {Promise<Ort>}
 */
export async function loadOrt(threads) {
  const ort = /** @type {Ort} */ (await import(new URL('ort.wasm.min.mjs', VENDOR).href))
  ort.env.wasm.numThreads = globalThis.crossOriginIsolated ? threads : 1
  return ort
}

/** @returns {Promise<Libraries>} */
export async function loadText() {
  const [{ Template }, { Tokenizer }] = await Promise.all([
    import(new URL('jinja.js', VENDOR).href),
    import(new URL('tokenizers.mjs', VENDOR).href),
  ])
  return { Template, Tokenizer }
}
