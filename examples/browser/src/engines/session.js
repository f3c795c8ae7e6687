// Opening one graph of a bundle in ONNX Runtime Web, on the CPU (WebAssembly).
//
// A graph refers to its weights as external data. ONNX Runtime Web reads such data only from what it is handed here, and
// checks every range against it; there is no file system that a graph could name files of.

import { checkEngine } from '../bundle/manifest.js'
import { EngineError, messageOf } from '../errors.js'
import { widen, WIDENED } from './widen.js'

/** @typedef {typeof import('onnxruntime-web')} Ort */
/** @typedef {import('onnxruntime-web').InferenceSession} Session */

export const WEIGHTS = 'weights.bin'

/**
 * Throws BundleError for a damaged graph, EngineError where ONNX Runtime refuses it.
 * @param {Ort} ort
 * @param {import('../bundle/bundle.js').Bundle} bundle
 * @param {string} name
 * @param {Uint8Array | null} weights
 * @returns {Promise<Session>}
 */
export async function openSession(ort, bundle, name, weights) {
  checkEngine(bundle.manifest.engine, ort.env.versions.web ?? ort.env.versions.common)
  const stored = await bundle.read(name)
  const wide = weights && widen(stored, weights)
  const externalData = weights ? [{ path: WEIGHTS, data: weights }] : []
  if (wide) externalData.push({ path: WIDENED, data: wide.widened })
  try {
    return await ort.InferenceSession.create(wide ? wide.model : stored, {
      executionProviders: ['wasm'],
      // The graphs are written in their final form; fusing further costs load time.
      graphOptimizationLevel: 'basic',
      logSeverityLevel: 3,
      enableMemPattern: false,
      externalData,
    })
  } catch (error) {
    throw new EngineError(`onnxruntime cannot open ${name}: ${messageOf(error)}`)
  }
}

/**
 * A run whose failure is an EngineError.
 * @param {Session} session
 * @param {Record<string, import('onnxruntime-web').Tensor>} feeds
 * @param {readonly string[]} [fetches] outputs that are wanted; all, if not given
 */
export async function run(session, feeds, fetches) {
  try {
    return await (fetches ? session.run(feeds, fetches) : session.run(feeds))
  } catch (error) {
    throw new EngineError(`onnxruntime: ${messageOf(error)}`)
  }
}
