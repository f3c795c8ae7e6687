// Everything that needs no Android: it compiles and runs on a workstation's Java.
plugins {
    kotlin("jvm")
}

kotlin {
    jvmToolchain(17)
}
