// NumPy's random numbers, bit for bit, so that what is drawn here is what the device draws: PCG64 (O'Neill 2014, PCG
// XSL-RR 128/64) seeded through NumPy's SeedSequence (O'Neill 2015, "C++ Seeding Surprises").

const MASK32 = 0xffffffffn
const MASK64 = (1n << 64n) - 1n
const MASK128 = (1n << 128n) - 1n
const MULTIPLIER = 0x2360ed051fc65da44385df649fccf645n
const POOL = 4 // words of 32 bits

export class Pcg64 {
  #state = 0n
  #increment = 0n

  /** @param {number | bigint} seed a whole number of at least 0 */
  constructor(seed) {
    const words = seedWords(BigInt(seed))
    const start = join(words.slice(0, 4))
    this.#increment = ((join(words.slice(4)) << 1n) | 1n) & MASK128
    this.#step()
    this.#state = (this.#state + start) & MASK128
    this.#step()
  }

  /** The next 64 bits. */
  next() {
    this.#step()
    const folded = ((this.#state >> 64n) ^ this.#state) & MASK64
    const turns = this.#state >> 122n
    return ((folded >> turns) | (folded << ((64n - turns) & 63n))) & MASK64
  }

  /** A number from 0 up to, but not including, 1, of 53 bits. */
  uniform() {
    return Number(this.next() >> 11n) * 2 ** -53
  }

  /** A number of the standard Gumbel distribution; the largest of logits plus such numbers is a sample of them. */
  gumbel() {
    let left = 1 - this.uniform()
    while (left >= 1) left = 1 - this.uniform()
    return -Math.log(-Math.log(left))
  }

  #step() {
    this.#state = (this.#state * MULTIPLIER + this.#increment) & MASK128
  }
}

/**
 * SeedSequence(seed).generate_state(8, uint32), the halves of each 64 bits lowest first.
 * @param {bigint} seed
 * @returns {number[]}
 */
function seedWords(seed) {
  /** @type {number[]} */
  const entropy = []
  for (let rest = seed; rest > 0n || !entropy.length; rest >>= 32n) entropy.push(Number(rest & MASK32))
  let factor = 0x43b0d7e5
  /** @param {number} value */
  const hash = (value) => {
    const mixed = value ^ factor
    factor = Math.imul(factor, 0x931e8875)
    const product = Math.imul(mixed, factor)
    return product ^ (product >>> 16)
  }
  const pool = Array.from({ length: POOL }, (_, i) => hash(entropy[i] ?? 0))
  const mix = (/** @type {number} */ x, /** @type {number} */ y) => {
    const mixed = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) | 0
    return mixed ^ (mixed >>> 16)
  }
  for (let from = 0; from < POOL; from++) {
    for (let to = 0; to < POOL; to++) if (from !== to) pool[to] = mix(pool[to] ?? 0, hash(pool[from] ?? 0))
  }
  for (const word of entropy.slice(POOL)) {
    for (let to = 0; to < POOL; to++) pool[to] = mix(pool[to] ?? 0, hash(word))
  }
  let output = 0x8b51f9dd
  return Array.from({ length: 8 }, (_, i) => {
    const mixed = (pool[i % POOL] ?? 0) ^ output
    output = Math.imul(output, 0x58f38ded)
    const product = Math.imul(mixed, output)
    return (product ^ (product >>> 16)) >>> 0
  })
}

/**
 * Two numbers of 64 bits, the higher first, each as two words, the lower first.
 * @param {number[]} words
 */
function join([a = 0, b = 0, c = 0, d = 0]) {
  return (BigInt(b) << 96n) | (BigInt(a) << 64n) | (BigInt(d) << 32n) | BigInt(c)
}
