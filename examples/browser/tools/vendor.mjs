// Puts the libraries of others beside the page: `npm ci`, then `npm run vendor`. A static server can then serve this
// folder as it is. Nothing of theirs is changed.

import { copyFile, mkdir } from 'node:fs/promises'

const FILES = {
  'onnxruntime-web/dist/ort.wasm.min.mjs': 'ort.wasm.min.mjs',
  'onnxruntime-web/dist/ort-wasm-simd-threaded.mjs': 'ort-wasm-simd-threaded.mjs',
  'onnxruntime-web/dist/ort-wasm-simd-threaded.wasm': 'ort-wasm-simd-threaded.wasm',
  '@huggingface/jinja/dist/index.js': 'jinja.js',
  '@huggingface/jinja/LICENSE': 'jinja.LICENSE',
  '@huggingface/tokenizers/dist/tokenizers.mjs': 'tokenizers.mjs',
  '@huggingface/tokenizers/LICENSE': 'tokenizers.LICENSE',
}

const root = new URL('../', import.meta.url)
await mkdir(new URL('vendor/', root), { recursive: true })
for (const [from, to] of Object.entries(FILES)) {
  await copyFile(new URL(`node_modules/${from}`, root), new URL(`vendor/${to}`, root))
}
console.log(`${Object.keys(FILES).length} files in vendor/`)
