package sottovoce.app

import android.Manifest
import android.app.Activity
import android.content.Intent
import android.content.pm.PackageManager
import android.os.Bundle
import android.view.WindowManager
import android.widget.Button
import android.widget.ScrollView
import android.widget.TextView
import java.util.concurrent.Executors
import sottovoce.core.Caption

/** One screen: choose a bundle, start, and read. Everything slow runs in one thread beside it. */
class MainActivity : Activity() {
    private val work = Executors.newSingleThreadExecutor()
    private val finals = StringBuilder()
    private var model: Model? = null

    @Volatile
    private var listening = false

    private val state get() = findViewById<TextView>(R.id.state)
    private val captions get() = findViewById<TextView>(R.id.captions)
    private val listen get() = findViewById<Button>(R.id.listen)
    private val choose get() = findViewById<Button>(R.id.choose)

    override fun onCreate(saved: Bundle?) {
        super.onCreate(saved)
        setContentView(R.layout.main)
        choose.setOnClickListener {
            val any = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("*/*")
            startActivityForResult(any, CHOOSE)
        }
        listen.setOnClickListener { if (listening) listening = false else begin() }
        open { Model.open(this, ::copying) }
    }

    override fun onDestroy() {
        listening = false
        work.execute { model?.close() }
        work.shutdown()
        super.onDestroy()
    }

    override fun onPause() {
        listening = false
        super.onPause()
    }

    @Deprecated("the successor needs a library")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        super.onActivityResult(request, result, data)
        val chosen = data?.data
        if (request == CHOOSE && result == RESULT_OK && chosen != null) open { Model.import(this, chosen, ::copying) }
    }

    override fun onRequestPermissionsResult(request: Int, names: Array<String>, results: IntArray) {
        super.onRequestPermissionsResult(request, names, results)
        if (results.firstOrNull() == PackageManager.PERMISSION_GRANTED) begin() else state.setText(R.string.no_microphone)
    }

    private fun open(how: () -> Model?) {
        listening = false
        state.setText(R.string.opening)
        listen.isEnabled = false
        work.execute {
            model?.close()
            model = null
            val said = try {
                model = how()
                model?.let { getString(R.string.ready, it.name, it.precision) } ?: getString(R.string.no_bundle)
            } catch (error: Exception) {
                error.message ?: error.toString()
            }
            runOnUiThread {
                state.text = said
                listen.isEnabled = model != null
            }
        }
    }

    private fun copying(percent: Int) = runOnUiThread { state.text = getString(R.string.copying, percent) }

    private fun begin() {
        if (checkSelfPermission(Manifest.permission.RECORD_AUDIO) != PackageManager.PERMISSION_GRANTED) {
            requestPermissions(arrayOf(Manifest.permission.RECORD_AUDIO), MICROPHONE)
            return
        }
        val captioner = model?.captioner ?: return
        listening = true
        showListening(true)
        work.execute {
            val said = try {
                Microphone().use { microphone ->
                    while (listening) show(captioner.push(microphone.read()))
                }
                show(captioner.finish())
                null
            } catch (error: Exception) {
                error.message ?: error.toString()
            }
            listening = false
            runOnUiThread {
                showListening(false)
                if (said != null) state.text = said
            }
        }
    }

    private fun showListening(on: Boolean) {
        listen.setText(if (on) R.string.stop else R.string.start)
        choose.isEnabled = !on
        if (on) state.setText(R.string.listening) else model?.let { state.text = getString(R.string.ready, it.name, it.precision) }
        val keep = WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON
        if (on) window.addFlags(keep) else window.clearFlags(keep)
    }

    private fun show(new: List<Caption>) {
        if (new.isEmpty()) return
        for (caption in new) if (caption.final) finals.append(caption.text).append('\n')
        val text = finals.toString() + (new.last().takeIf { !it.final }?.text ?: "")
        runOnUiThread {
            captions.text = text
            findViewById<ScrollView>(R.id.scroll).run { post { fullScroll(ScrollView.FOCUS_DOWN) } }
        }
    }

    private companion object {
        const val CHOOSE = 1
        const val MICROPHONE = 2
    }
}
