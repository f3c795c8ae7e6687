package sottovoce.core

/** Runs a bundle's two graphs. One implementation an engine; `:app` has that of ONNX Runtime. */
interface SpeechEngine {
    /** Encode a clip: float32 at 16 kHz, at most 30 s. */
    fun start(samples: FloatArray): Sequence

    /** Tokens fed over one clip's audio. */
    interface Sequence : AutoCloseable {
        /** Forget the tokens fed so far; the audio stays. */
        fun restart()

        /** Feed [tokens]; the logits (vocabulary) after those at [positions] of them, which the caller may change. */
        fun run(tokens: IntArray, positions: IntArray): List<FloatArray>
    }
}

/** Tells speech from silence. */
interface VoiceActivity {
    /** The probability of speech in each frame of 512 samples that [samples] complete; what is left over is kept. */
    fun push(samples: FloatArray): FloatArray

    /** Forget what was heard. */
    fun reset()
}

const val SAMPLE_RATE = 16_000 // Hz
