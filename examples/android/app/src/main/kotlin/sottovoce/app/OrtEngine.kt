package sottovoce.app

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OnnxTensorLike
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtSession
import java.io.File
import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.nio.LongBuffer
import sottovoce.core.Shape
import sottovoce.core.SpeechEngine
import sottovoce.core.VoiceActivity

/**
 * Whisper's two graphs on ONNX Runtime; inputs and outputs are in docs/devices.md. The graphs lie in a folder with
 * `weights.bin`, which ONNX Runtime maps.
 */
class OrtEngine(private val folder: File, private val shape: Shape, threads: Int) : SpeechEngine, AutoCloseable {
    private val environment = OrtEnvironment.getEnvironment()
    private val encoder = open("encoder.onnx", threads)
    private val decoder = open("decoder.onnx", threads)

    override fun start(samples: FloatArray): SpeechEngine.Sequence {
        // The spectrogram reflects 200 samples at the start: shorter audio is followed by silence.
        val audio = samples.copyOf(samples.size.coerceIn(MIN_SAMPLES, shape.samples))
        val shaped = longArrayOf(1, audio.size.toLong())
        return OnnxTensor.createTensor(environment, FloatBuffer.wrap(audio), shaped).use { tensor ->
            OrtSequence(environment, decoder, encoder.run(mapOf("audio" to tensor)), shape)
        }
    }

    override fun close() {
        encoder.close()
        decoder.close()
    }

    private fun open(name: String, threads: Int): OrtSession = OrtSession.SessionOptions().use { options ->
        options.setIntraOpNumThreads(threads)
        options.setInterOpNumThreads(1)
        // The graphs are written in their final form: fusing further costs load time.
        options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.BASIC_OPT)
        options.setMemoryPatternOptimization(false) // audio comes in every length
        environment.createSession(File(folder, name).path, options)
    }

    private companion object {
        const val MIN_SAMPLES = 400
    }
}

/**
 * Tokens over one clip's audio. What a run gives back of its caches, one token longer, is what the next run is given: the
 * tensors stay in native memory.
 */
private class OrtSequence(
    private val environment: OrtEnvironment,
    private val decoder: OrtSession,
    private val encoded: OrtSession.Result,
    private val shape: Shape,
) : SpeechEngine.Sequence {
    private val caches = (0 until shape.layers).flatMap { listOf("key_$it", "value_$it") }
    private val outputs = caches.map { "present_$it" }.toSet() + "logits"
    private val nothing = caches.associateWith {
        val size = longArrayOf(1, shape.heads.toLong(), 0, shape.headWidth.toLong())
        OnnxTensor.createTensor(environment, FloatBuffer.allocate(0), size)
    }
    private var last: OrtSession.Result? = null
    private var length = 0

    override fun restart() {
        last?.close()
        last = null
        length = 0
    }

    override fun run(tokens: IntArray, positions: IntArray): List<FloatArray> {
        length += tokens.size
        val own = listOf(
            int64(tokens, longArrayOf(1, tokens.size.toLong())),
            OnnxTensor.createTensor(environment, IntBuffer.wrap(intArrayOf(length)), longArrayOf(1)),
            int64(positions, longArrayOf(positions.size.toLong())),
        )
        val feeds = HashMap<String, OnnxTensorLike>()
        listOf("tokens", "total_length", "logit_positions").zip(own).forEach { (name, tensor) -> feeds[name] = tensor }
        for ((name, value) in encoded) feeds[name] = value as OnnxTensor
        for (name in caches) {
            val past = last?.get("present_$name")?.get() as OnnxTensor?
            feeds["past_$name"] = past ?: nothing.getValue(name)
        }
        val found = try {
            decoder.run(feeds, outputs)
        } finally {
            own.forEach(OnnxTensor::close)
        }
        last?.close()
        last = found
        val logits = (found.get("logits").get() as OnnxTensor).floatBuffer
        return positions.map { FloatArray(shape.vocabulary).also(logits::get) }
    }

    override fun close() {
        last?.close()
        encoded.close()
        nothing.values.forEach(OnnxTensor::close)
    }

    private fun int64(values: IntArray, size: LongArray) =
        OnnxTensor.createTensor(environment, LongBuffer.wrap(LongArray(values.size) { values[it].toLong() }), size)
}

/** The bundle's voice activity network over frames of 512 samples, each seen after the last 64 of the one before. */
class OrtVoiceActivity(model: File) : VoiceActivity, AutoCloseable {
    private val environment = OrtEnvironment.getEnvironment()
    private val session = OrtSession.SessionOptions().use { options ->
        options.setIntraOpNumThreads(1)
        environment.createSession(model.path, options)
    }
    private var waiting = FloatArray(0)
    private var context = FloatArray(CONTEXT)
    private var hidden = FloatArray(STATE)
    private var cell = FloatArray(STATE)

    override fun push(samples: FloatArray): FloatArray {
        waiting += samples
        val frames = waiting.size / FRAME
        if (frames == 0) return FloatArray(0)
        val input = FloatBuffer.allocate(frames * (CONTEXT + FRAME))
        for (i in 0 until frames) {
            input.put(context).put(waiting, i * FRAME, FRAME)
            context = waiting.copyOfRange((i + 1) * FRAME - CONTEXT, (i + 1) * FRAME)
        }
        input.rewind()
        waiting = waiting.copyOfRange(frames * FRAME, waiting.size)
        return run(input, frames)
    }

    override fun reset() {
        waiting = FloatArray(0)
        context = FloatArray(CONTEXT)
        hidden = FloatArray(STATE)
        cell = FloatArray(STATE)
    }

    override fun close() = session.close()

    private fun run(input: FloatBuffer, frames: Int): FloatArray {
        val state = longArrayOf(1, 1, STATE.toLong())
        val feeds = mapOf(
            "input" to OnnxTensor.createTensor(environment, input, longArrayOf(frames.toLong(), (CONTEXT + FRAME).toLong())),
            "h" to OnnxTensor.createTensor(environment, FloatBuffer.wrap(hidden), state),
            "c" to OnnxTensor.createTensor(environment, FloatBuffer.wrap(cell), state),
        )
        try {
            session.run(feeds).use { found ->
                fun floats(name: String, count: Int) =
                    FloatArray(count).also { (found.get(name).get() as OnnxTensor).floatBuffer.get(it) }
                hidden = floats("hn", STATE)
                cell = floats("cn", STATE)
                return floats("speech_probs", frames)
            }
        } finally {
            feeds.values.forEach(OnnxTensor::close)
        }
    }

    private companion object {
        const val FRAME = 512
        const val CONTEXT = 64
        const val STATE = 128
    }
}
