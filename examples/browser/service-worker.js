// Keeps the page itself, so that it opens without a network, and makes it cross-origin isolated, so that WebAssembly may
// use threads: a static server need not send the two headers. Bundles are kept by the page (src/page/store.js).

/// <reference lib="webworker" />

const CACHE = 'sottovoce-page'
const FILES = [
  './', 'style.css', 'icon.svg', 'app.webmanifest',
  'src/errors.js', 'src/libraries.js', 'src/random.js', 'src/worker.js',
  'src/audio/decode.js', 'src/audio/recorder-worklet.js', 'src/audio/recorder.js', 'src/audio/resample.js',
  'src/audio/wav.js', 'src/bundle/archive.js', 'src/bundle/bundle.js', 'src/bundle/manifest.js', 'src/chat/chat.js',
  'src/chat/prompt.js', 'src/chat/sampling.js', 'src/chat/vocabulary.js', 'src/engines/chat.js',
  'src/engines/protobuf.js', 'src/engines/session.js', 'src/engines/whisper.js', 'src/engines/widen.js', 'src/page/chat.js', 'src/page/client.js', 'src/page/dom.js',
  'src/page/formats.js', 'src/page/main.js', 'src/page/model.js', 'src/page/speech.js', 'src/page/store.js',
  'src/speech/chunking.js', 'src/speech/decoder.js', 'src/speech/grammar.js', 'src/speech/guards.js',
  'src/speech/pieces.js', 'src/speech/segments.js', 'src/speech/tokens.js', 'src/speech/transcriber.js',
  'src/speech/vad.js',
  'vendor/jinja.js', 'vendor/ort-wasm-simd-threaded.mjs', 'vendor/ort-wasm-simd-threaded.wasm',
  'vendor/ort.wasm.min.mjs', 'vendor/tokenizers.mjs',
] // prettier-ignore

const scope = /** @type {ServiceWorkerGlobalScope} */ (/** @type {unknown} */ (self))

scope.addEventListener('install', (event) => event.waitUntil(store()))
scope.addEventListener('activate', (event) => event.waitUntil(scope.clients.claim()))
scope.addEventListener('fetch', (event) => {
  const { method, url } = event.request
  const mine = url.startsWith(scope.registration.scope)
  if (method === 'GET' && mine && !new URL(url).pathname.endsWith('.svb')) event.respondWith(answer(event.request))
})

async function store() {
  const cache = await caches.open(CACHE)
  await cache.addAll(FILES.map((file) => new Request(file, { cache: 'no-cache' })))
  await scope.skipWaiting()
}

/**
 * From the network, so that a new version is seen at once; from the cache where there is none.
 * @param {Request} request
 */
async function answer(request) {
  const cache = await caches.open(CACHE)
  try {
    const found = await fetch(request, { cache: 'no-cache' })
    if (found.ok && (await cache.match(request, { ignoreSearch: true }))) await cache.put(request, found.clone())
    return isolated(found)
  } catch (error) {
    const kept = await cache.match(request.mode === 'navigate' ? './' : request, { ignoreSearch: true })
    if (kept) return isolated(kept)
    throw error
  }
}

/** @param {Response} response */
function isolated(response) {
  if (!response.body || response.type === 'opaque') return response
  const headers = new Headers(response.headers)
  headers.set('Cross-Origin-Opener-Policy', 'same-origin')
  headers.set('Cross-Origin-Embedder-Policy', 'require-corp')
  headers.set('Cross-Origin-Resource-Policy', 'same-origin')
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers })
}
